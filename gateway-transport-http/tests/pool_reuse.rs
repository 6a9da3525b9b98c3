//! Connections are kept and used again, within their bounds.

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use gateway_core::RunnerLink;
use gateway_transport_http::HttpLink;
use support::*;
use tokio::sync::mpsc;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";

#[tokio::test]
async fn one_after_the_other_shares_one_connection() {
    for (answer, body) in [
        (answer(200, "hello"), "hello"),
        (answer(200, &"long ".repeat(200_000)), &*"long ".repeat(200_000)),
        (answer(404, ""), ""),
        (CHUNKED.to_owned(), "hello"),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), ""),
    ] {
        let server = Server::answering(answer.clone()).await;
        let link = HttpLink::new(&server.url).unwrap();
        for _ in 0..50 {
            let (_, got) = whole(link.send(post("/v1/x", "{}")).await).await.unwrap();
            assert!(got == body);
        }
        assert_eq!(server.connections(), 1, "{}", &answer[..40]);
    }
}

#[tokio::test]
async fn at_once_each_has_its_own_and_then_they_are_shared() {
    let server = Server::answering(answer(200, "hello")).await;
    let link = HttpLink::new(&server.url).unwrap();
    for _ in 0..20 {
        let answers =
            join_all((0..8).map(|_| async { whole(link.send(get("/")).await).await.unwrap() })).await;
        assert!(answers.iter().all(|(status, _)| *status == 200));
    }
    assert_eq!(server.connections(), 8);
}

#[tokio::test]
async fn a_body_that_is_still_read_keeps_its_connection_to_itself() {
    let server = Server::answering(CHUNKED).await;
    let link = HttpLink::new(&server.url).unwrap();
    let first = link.send(get("/")).await;
    whole(link.send(get("/")).await).await.unwrap();
    assert_eq!(server.connections(), 2);
    whole(first).await.unwrap();
}

#[tokio::test]
async fn no_more_idle_than_allowed() {
    let server = Server::answering(answer(200, "hello")).await;
    let link = HttpLink::builder(&server.url).max_idle(2).build().unwrap();
    for round in 1..=3 {
        let open = join_all((0..4).map(|_| link.send(get("/")))).await;
        join_all(open.into_iter().map(whole)).await;
        assert_eq!(server.connections(), 4 + 2 * (round - 1));
    }

    let server = Server::answering(answer(200, "hello")).await;
    let link = HttpLink::builder(&server.url).max_idle(0).build().unwrap();
    for _ in 0..3 {
        whole(link.send(get("/")).await).await.unwrap();
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let server = Server::answering(CHUNKED).await;
    let link = HttpLink::builder(&server.url).max_connections(2).build().unwrap();
    let first = link.send(get("/")).await.unwrap();
    let second = link.send(get("/")).await.unwrap();
    assert!(link.send(get("/")).await.unwrap_err().is_not_sent());
    drop(first);
    whole(link.send(get("/")).await).await.unwrap();
    drop(second);
    assert_eq!(server.connections(), 3);
}

/// A server that tells when a connection ends.
async fn telling(answer: &'static str) -> (Server, mpsc::Receiver<usize>) {
    let (ended, endings) = mpsc::channel(16);
    let server = Server::start(move |number, mut peer| {
        let ended = ended.clone();
        async move {
            while peer.request().await.is_some() {
                peer.write(answer).await;
            }
            let _ = ended.send(number).await;
        }
    })
    .await;
    (server, endings)
}

#[tokio::test]
async fn what_is_idle_for_too_long_is_closed_without_another_request() {
    let (server, mut endings) = telling(CHUNKED).await;
    let link = HttpLink::builder(&server.url).idle_timeout(Duration::from_millis(30)).build().unwrap();
    for number in 0..3 {
        whole(link.send(get("/")).await).await.unwrap();
        assert_eq!(soon("the end of the idle connection", endings.recv()).await, Some(number));
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn what_the_runner_closes_is_let_go_without_another_request() {
    let (kept, is_kept) = tokio::sync::oneshot::channel::<()>();
    let (ended, endings) = tokio::sync::oneshot::channel();
    let channels = std::sync::Mutex::new(Some((is_kept, ended)));
    let server = Server::start(move |_, mut peer| {
        let (is_kept, ended) = channels.lock().unwrap().take().unwrap();
        async move {
            peer.request().await;
            peer.write(answer(200, "ok")).await;
            is_kept.await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut peer.stream).await.unwrap();
            peer.ended().await;
            let _ = ended.send(());
        }
    })
    .await;
    let link = HttpLink::new(&server.url).unwrap();
    whole(link.send(get("/")).await).await.unwrap();
    kept.send(()).unwrap();
    // Both sides have to close, or the socket stays half open until the idle timeout.
    soon("our side of the close", endings).await.unwrap();
}

#[tokio::test]
async fn what_says_close_is_not_kept() {
    for head in
        ["HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.0 200 OK\r\n\r\nok"]
    {
        let server = Server::start(move |_, mut peer| async move {
            peer.request().await;
            peer.write(head).await;
        })
        .await;
        let link = HttpLink::new(&server.url).unwrap();
        for _ in 0..3 {
            assert_eq!(whole(link.send(get("/")).await).await.unwrap().1, "ok");
        }
        assert_eq!(server.connections(), 3);
    }
}

#[tokio::test]
async fn closing_and_dropping_the_link_end_idle_connections() {
    let (server, mut endings) = telling(CHUNKED).await;
    let link = HttpLink::new(&server.url).unwrap();
    whole(link.send(get("/")).await).await.unwrap();
    drop(link);
    assert_eq!(soon("the end after the drop", endings.recv()).await, Some(0));

    let link = HttpLink::new(&server.url).unwrap();
    whole(link.send(get("/")).await).await.unwrap();
    link.close();
    assert_eq!(soon("the end after the close", endings.recv()).await, Some(1));
    assert!(link.send(get("/")).await.unwrap_err().is_not_sent());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_on_two_threads() {
    let server = Server::answering(CHUNKED).await;
    let link = std::sync::Arc::new(HttpLink::new(&server.url).unwrap());
    let tasks = (0..16).map(|_| {
        let link = link.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                assert_eq!(whole(link.send(post("/", "{}")).await).await.unwrap().1, "hello");
            }
        })
    });
    for task in soon("the tasks", join_all(tasks)).await {
        task.unwrap();
    }
    assert!(server.connections() <= 16, "{}", server.connections());
}
