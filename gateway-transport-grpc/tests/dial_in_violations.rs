//! A runner that does not keep to the protocol is told what is wrong, and only its own call ends.

mod dial_in_support;

use dial_in_support::client::{Client, Say, Told, register};
use dial_in_support::{Gateway, next_chunk, post, soon};
use gateway_transport_grpc::proto::runner_gateway::{
    CommandResult, Data, End, Header, Reset, ResponseHead, WindowUpdate,
};
use tonic::Code;

/// A runner with a stream that is begun and one that is answered.
async fn busy(gateway: &Gateway) -> (Client, u64, u64) {
    let mut client = gateway.join("bad").await;
    let link = gateway.joined("bad").await.link().clone();
    let mut ids = [0; 2];
    for id in &mut ids {
        let link = link.clone();
        tokio::spawn(async move {
            let answer = link.send(post("")).await;
            if let Ok(answer) = answer {
                let mut body = answer.into_body();
                // Reads one chunk and stalls.
                let _ = next_chunk(&mut body).await;
                std::future::pending::<()>().await;
            }
        });
        let Told::RequestHead(head) = client.next().await else { panic!("no request") };
        *id = head.stream_id;
    }
    client.answer(ids[1]).await;
    (client, ids[0], ids[1])
}

fn head(stream_id: u64, status: u32, headers: Vec<Header>) -> Say {
    Say::ResponseHead(ResponseHead { stream_id, status, headers, end: false })
}

fn data(stream_id: u64, len: usize) -> Say {
    Say::ResponseBody(Data { stream_id, data: vec![b'x'; len].into() })
}

fn end(stream_id: u64) -> Say {
    Say::ResponseEnd(End { stream_id, trailers: Vec::new() })
}

fn window(stream_id: u64, bytes: u32) -> Say {
    Say::WindowUpdate(WindowUpdate { stream_id, bytes })
}

#[tokio::test(start_paused = true)]
async fn each_is_told_and_ends_only_its_own_call() {
    let gateway = Gateway::default().await;
    let mut good = gateway.join("good").await;
    let link = gateway.joined("good").await.link().clone();
    let header = |name: &str, value: Vec<u8>| Header { name: name.to_owned(), value: value.into() };
    type Wrong = Box<dyn Fn(u64, u64) -> Vec<Say>>;
    let cases: Vec<(&str, Wrong)> = vec![
        ("never begun", Box::new(|_, _| vec![head(99, 200, vec![])])),
        ("never begun", Box::new(|_, _| vec![data(0, 1)])),
        ("never begun", Box::new(|_, _| vec![Say::Reset(Reset { stream_id: 99, ..Reset::default() })])),
        ("never begun", Box::new(|_, _| vec![window(99, 1)])),
        ("second head", Box::new(|_, open| vec![head(open, 200, vec![])])),
        ("before the head", Box::new(|begun, _| vec![data(begun, 1)])),
        ("before its head", Box::new(|begun, _| vec![end(begun)])),
        ("after the end", Box::new(|_, open| vec![data(open, 1), data(open, 1), end(open), data(open, 1)])),
        ("a second time", Box::new(|_, open| vec![data(open, 1), data(open, 1), end(open), end(open)])),
        ("16385 bytes", Box::new(|_, open| vec![data(open, 16_385)])),
        ("more than it has credit", Box::new(|_, open| (0..9).map(|_| data(open, 16_384)).collect())),
        ("window update of 0", Box::new(|_, open| vec![window(open, 0)])),
        ("window update", Box::new(|_, open| vec![window(open, i32::MAX as u32)])),
        ("no status", Box::new(|begun, _| vec![head(begun, 100, vec![])])),
        ("no status", Box::new(|begun, _| vec![head(begun, 0, vec![])])),
        ("name of a header", Box::new(move |begun, _| vec![head(begun, 200, vec![header("a b", vec![])])])),
        ("header x-a", Box::new(move |begun, _| vec![head(begun, 200, vec![header("x-a", vec![0])])])),
        (
            "head of 65",
            Box::new(move |begun, _| vec![head(begun, 200, vec![header("a", vec![b'x'; 65_536])])]),
        ),
        ("second `register`", Box::new(|_, _| vec![Say::Register(register("bad"))])),
        (
            "too long",
            Box::new(|_, _| {
                let request_id = "x".repeat(1024 * 1024);
                vec![Say::CommandResult(CommandResult { request_id, ..CommandResult::default() })]
            }),
        ),
    ];
    for (at, (words, wrong)) in cases.into_iter().enumerate() {
        println!("{at}: {words}");
        let (mut bad, begun, open) = busy(&gateway).await;
        for frame in wrong(begun, open) {
            bad.say(frame).await;
        }
        let mut told = String::new();
        let status = loop {
            match bad.told().await {
                Ok(Told::Error(error)) => {
                    assert_eq!(error.code, "PROTOCOL_ERROR");
                    told = error.message;
                }
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert!(told.contains(words), "{at}: {told:?} does not say {words:?}");
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, told.as_str()));
        soon(gateway.until(|fleet| fleet.runner("bad").is_none())).await;
    }
    // The other has seen nothing of it.
    let asked = tokio::spawn(async move { link.send(post("")).await });
    let Told::RequestHead(head) = good.next().await else { panic!("no request") };
    good.answer(head.stream_id).await;
    good.done(head.stream_id).await;
    soon(asked).await.unwrap().unwrap();
}
