//! Requests on a call, frame by frame.

mod dial_in_support;

use std::time::Duration;

use dial_in_support::client::{Client, Say, Told};
use dial_in_support::{Gateway, next_chunk, post, soon, upload};
use gateway_core::{LinkBody, LinkError, LinkResponse, RunnerLink};
use gateway_transport_grpc::dial_in::GrpcDialIn;
use gateway_transport_grpc::proto::runner_gateway::{
    GoAway, Header, RequestHead, ResetReason, ResponseHead, WindowUpdate,
};
use std::sync::Arc;
use tokio::task::JoinHandle;

type Asked = JoinHandle<Result<LinkResponse, LinkError>>;

async fn joined() -> (Gateway, Client, Arc<dyn RunnerLink>) {
    let gateway = Gateway::default().await;
    let client = gateway.join("r1").await;
    let link = gateway.joined("r1").await.link().clone();
    (gateway, client, link)
}

fn ask(link: &Arc<dyn RunnerLink>, request: gateway_core::LinkRequest) -> Asked {
    let link = link.clone();
    tokio::spawn(async move { link.send(request).await })
}

async fn head(client: &mut Client) -> RequestHead {
    match client.next().await {
        Told::RequestHead(head) => head,
        other => panic!("{other:?}"),
    }
}

fn get() -> gateway_core::LinkRequest {
    http::Request::get("/x").body(gateway_core::RequestBody::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_stands_on_the_wire_as_the_file_says() {
    let (_gateway, mut client, link) = joined().await;
    let mut request = post("hello");
    request.headers_mut().insert("x-a", "b".parse().unwrap());
    let asked = ask(&link, request);
    let head = head(&mut client).await;
    assert_eq!((head.stream_id, head.method.as_str(), head.end), (1, "POST", false));
    assert_eq!(head.path, "/v1/chat/completions?a=b");
    let header = |name: &str, value: &'static str| Header { name: name.to_owned(), value: value.into() };
    assert_eq!(head.headers, [header("x-a", "b"), header("content-length", "5")]);
    let Told::RequestBody(data) = client.next().await else { panic!("no body") };
    assert_eq!((data.stream_id, &data.data[..]), (1, &b"hello"[..]));
    let Told::RequestEnd(end) = client.next().await else { panic!("no end") };
    assert_eq!((end.stream_id, end.trailers.len()), (1, 0));
    let answer = ResponseHead { stream_id: 1, status: 418, headers: vec![header("x-c", "d")], end: true };
    client.say(Say::ResponseHead(answer)).await;
    let answer = soon(asked).await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-c"]), (418, &"d".parse().unwrap()));
    assert_eq!(gateway_testkit::text(answer).await.unwrap(), "");
    // Without a body nothing follows the head.
    let _asked = ask(&link, get());
    let head = self::head(&mut client).await;
    assert!(head.stream_id == 2 && head.end && head.headers.is_empty());
}

/// What becomes of a request whose stream is reset for that reason, before the head or after it.
async fn reset(reason: ResetReason, after_head: bool) -> LinkError {
    let (_gateway, mut client, link) = joined().await;
    let asked = ask(&link, get());
    let id = head(&mut client).await.stream_id;
    if !after_head {
        client.reset(id, reason).await;
        return soon(asked).await.unwrap().unwrap_err();
    }
    client.answer(id).await;
    client.data(id, "x").await;
    let mut body = soon(asked).await.unwrap().unwrap().into_body();
    assert_eq!(soon(next_chunk(&mut body)).await.unwrap().unwrap(), "x");
    client.reset(id, reason).await;
    soon(next_chunk(&mut body)).await.unwrap().unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_reset_says_whether_the_request_may_go_elsewhere() {
    for (reason, not_sent) in [
        (ResetReason::NotSeen, true),
        (ResetReason::EngineUnreachable, true),
        (ResetReason::EngineLost, false),
        (ResetReason::Cancelled, false),
        (ResetReason::Unspecified, false),
    ] {
        assert_eq!(reset(reason, false).await.is_not_sent(), not_sent, "{reason:?}");
        assert!(!reset(reason, true).await.is_not_sent(), "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_a_reset_at_once_and_late_frames_are_skipped() {
    let (_gateway, mut client, link) = joined().await;
    let asked = ask(&link, get());
    let id = head(&mut client).await.stream_id;
    asked.abort();
    let Told::Reset(reset) = client.next().await else { panic!("no reset") };
    assert_eq!((reset.stream_id, reset.reason()), (id, ResetReason::Cancelled));
    // The runner may not have known yet.
    client.answer(id).await;
    client.data(id, "late").await;
    client.say(Say::WindowUpdate(WindowUpdate { stream_id: id, bytes: 5 })).await;
    client.done(id).await;
    client.reset(id, ResetReason::EngineLost).await;
    // And the call goes on.
    let asked = ask(&link, get());
    let next = head(&mut client).await.stream_id;
    assert!(next > id);
    client.answer(next).await;
    client.done(next).await;
    assert_eq!(gateway_testkit::text(soon(asked).await.unwrap().unwrap()).await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_given_up_before_it_went_out_is_never_seen() {
    let (_gateway, mut client, link) = joined().await;
    // Nothing is awaited in between: whoever writes has not had its turn.
    for _ in 0..1000 {
        let mut sending = link.send(get());
        assert!(futures_util::FutureExt::now_or_never(&mut sending).is_none());
    }
    let _asked = ask(&link, get());
    assert_eq!(head(&mut client).await.stream_id, 1001);
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_held_back_by_its_credit() {
    let (_gateway, mut client, link) = joined().await;
    let asked = ask(&link, post(vec![b'x'; 200_000]));
    let id = head(&mut client).await.stream_id;
    let mut got = 0;
    let wait = Duration::from_secs(1);
    while let Ok(told) = tokio::time::timeout(wait, client.next()).await {
        let Told::RequestBody(data) = told else { panic!("{told:?}") };
        assert!(data.data.len() <= 16 * 1024);
        got += data.data.len();
    }
    assert_eq!(got, 65_536);
    client.say(Say::WindowUpdate(WindowUpdate { stream_id: id, bytes: 200_000 })).await;
    loop {
        match client.next().await {
            Told::RequestBody(data) => got += data.data.len(),
            Told::RequestEnd(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, 200_000);
    client.answer(id).await;
    client.done(id).await;
    soon(asked).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn credit_is_given_back_as_the_reader_takes_and_not_before() {
    let (_gateway, mut client, link) = joined().await;
    let asked = ask(&link, get());
    let id = head(&mut client).await.stream_id;
    client.answer(id).await;
    for _ in 0..4 {
        client.data(id, vec![b'x'; 16_384]).await;
    }
    let mut body: LinkBody = soon(asked).await.unwrap().unwrap().into_body();
    assert!(tokio::time::timeout(Duration::from_secs(1), client.next()).await.is_err(), "nobody has read");
    soon(next_chunk(&mut body)).await.unwrap().unwrap();
    assert!(
        tokio::time::timeout(Duration::from_secs(1), client.next()).await.is_err(),
        "not for every chunk"
    );
    soon(next_chunk(&mut body)).await.unwrap().unwrap();
    let Told::WindowUpdate(update) = client.next().await else { panic!("no credit") };
    assert_eq!((update.stream_id, update.bytes), (id, 32_768));
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_come_and_end_before_the_request_has() {
    let (_gateway, mut client, link) = joined().await;
    let (sender, body) = upload();
    let asked = ask(&link, post(body));
    let id = head(&mut client).await.stream_id;
    sender.send(Ok("one".into())).await.unwrap();
    let Told::RequestBody(_) = client.next().await else { panic!("no body") };
    client.answer(id).await;
    client.data(id, "enough").await;
    client.done(id).await;
    let answer = soon(asked).await.unwrap().unwrap();
    assert_eq!(gateway_testkit::text(answer).await.unwrap(), "enough");
    soon(sender.closed()).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_upload_breaks_off_is_to_blame() {
    let (_gateway, mut client, link) = joined().await;
    let (sender, body) = upload();
    let asked = ask(&link, post(body));
    head(&mut client).await;
    sender.send(Err("the client is gone")).await.unwrap();
    assert!(soon(asked).await.unwrap().unwrap_err().is_request_body());
    let Told::Reset(_) = client.next().await else { panic!("no reset") };
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_streams_than_were_agreed_and_none_for_who_leaves() {
    let gateway = Gateway::start(GrpcDialIn::builder().auth_token("secret").max_streams(2).build()).await;
    let mut client = gateway.join("r1").await;
    let link = gateway.joined("r1").await.link().clone();
    let (first, _second) = (ask(&link, get()), ask(&link, get()));
    head(&mut client).await;
    head(&mut client).await;
    assert!(soon(ask(&link, get())).await.unwrap().unwrap_err().is_not_sent());
    first.abort();
    let Told::Reset(_) = client.next().await else { panic!("no reset") };
    let asked = ask(&link, get());
    let id = head(&mut client).await.stream_id;
    client.say(Say::GoAway(GoAway {})).await;
    client.answer(id).await;
    client.done(id).await;
    soon(asked).await.unwrap().unwrap();
    assert!(soon(ask(&link, get())).await.unwrap().unwrap_err().is_not_sent());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cut_fails_what_it_had() {
    let (_gateway, mut client, link) = joined().await;
    let waiting = ask(&link, get());
    head(&mut client).await;
    let reading = ask(&link, get());
    let id = head(&mut client).await.stream_id;
    client.answer(id).await;
    let mut body = soon(reading).await.unwrap().unwrap().into_body();
    drop(client);
    let lost = soon(waiting).await.unwrap().unwrap_err();
    assert!(!lost.is_not_sent(), "it may have been seen");
    assert!(soon(next_chunk(&mut body)).await.unwrap().is_err(), "a cut is no end");
}
