//! A chat goes out as `StreamPredict` and comes back as OpenAI's answer, in both dialects, over both kinds of
//! sockets.

mod support;

use gateway_transport_grpc::Dialect;
use support::{DIALECTS, Served, Worker, content, events, json, link, sent, streamed, text, whole};

#[tokio::test]
async fn a_chat_is_streamed_in_both_dialects() {
    for dialect in DIALECTS {
        let worker = Worker::says(["Hel", "lo \"you\"\n", "é"]);
        let served = worker.serve(dialect).await;
        let link = link(&served);
        assert_eq!(gateway_core::RunnerLink::describe(&link).transport, "grpc");
        let answer = sent(&link, streamed()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let events = events(&text(answer).await.unwrap());
        assert_eq!(content(&events), "Hello \"you\"\né");
        for event in &events {
            assert_eq!(event["id"], "chatcmpl-req-1");
            assert_eq!(event["object"], "chat.completion.chunk");
            assert_eq!(event["model"], "m");
            assert_eq!(event["choices"][0]["index"], 0);
            assert!(event["created"].as_u64().unwrap() > 1_600_000_000);
        }
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        assert!(events[1..].iter().all(|event| event["choices"][0]["delta"].get("role").is_none()));
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop");
        assert!(events.iter().all(|event| event.get("usage").is_none()), "nobody has asked, or counted");
        assert_eq!(worker.last().prompt, "User: hi\nAssistant:");
        assert_eq!(link.dialect(), Some(dialect));
    }
}

#[tokio::test]
async fn a_chat_that_is_not_streamed_comes_in_one_piece() {
    let served = Worker::says(["Hel", "lo"]).serve(Dialect::Packaged).await;
    let answer = sent(&link(&served), whole()).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    let answer = json(answer).await;
    assert_eq!(answer["id"], "chatcmpl-req-1");
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(answer.get("usage").is_none(), "nobody has counted");
}

#[tokio::test]
async fn a_unix_socket_is_as_good() {
    let directory = tempfile::tempdir().unwrap();
    for dialect in DIALECTS {
        let path = directory.path().join("cy_worker.sock");
        let served = Served::unix(Worker::says(["over ", "unix"]), dialect, &path).await;
        let link = link(&served);
        let events = events(&text(sent(&link, streamed()).await).await.unwrap());
        assert_eq!(content(&events), "over unix");
    }
}
