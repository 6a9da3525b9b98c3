//! An engine of fixed bytes: one thread per connection, blocking sockets.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use memchr::memmem;

use crate::pace::Pace;

const PLAIN: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"MODEL","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I help you today?"},"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":9,"total_tokens":33}}"#;
const CHUNK: &str = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"MODEL","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}"#;
const DONE: &str = "data: [DONE]\n\n";
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 20:00:00 GMT\r\nserver: uvicorn\r\n\
    content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

/// Serves `model` until the process ends.
///
/// # Errors
/// No port is free.
pub(crate) fn start(model: &'static str, pace: &Arc<Pace>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let pace = pace.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let pace = pace.clone();
            // Who goes away in the middle is seen by the client.
            thread::spawn(move || drop(Connection { stream, model, pace, read: Vec::new() }.serve()));
        }
    });
    Ok(address)
}

struct Connection {
    stream: TcpStream,
    model: &'static str,
    pace: Arc<Pace>,
    read: Vec<u8>,
}

impl Connection {
    fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        while self.read_more()? {
            let Some(end) = memmem::find(&self.read, b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&self.read[..end]).to_lowercase();
            let body = end + 4;
            if let Some(length) = head.split("content-length: ").nth(1) {
                let length: usize = length.split("\r\n").next().unwrap_or("").parse().unwrap_or(0);
                while self.read.len() < body + length && self.read_more()? {}
            } else if head.contains("transfer-encoding: chunked") {
                while !self.read.ends_with(b"0\r\n\r\n") && self.read_more()? {}
            }
            let is_stream = memmem::find(&self.read[body..], br#""stream":true"#).is_some();
            self.read.clear();
            if head.starts_with("get /v1/models") {
                let models =
                    format!(r#"{{"object":"list","data":[{{"id":"{}","object":"model"}}]}}"#, self.model);
                self.plain("200 OK", &models)?;
            } else if head.starts_with("get /health") {
                self.plain("200 OK", "{}")?;
            } else if head.starts_with("post /v1/chat/completions") {
                match is_stream {
                    true => self.stream()?,
                    false => self.plain("200 OK", &PLAIN.replace("MODEL", self.model))?,
                }
            } else {
                self.plain("404 Not Found", "{}")?;
            }
        }
        Ok(())
    }

    fn read_more(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 << 10];
        let read = self.stream.read(&mut buffer)?;
        self.read.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }

    fn plain(&mut self, status: &str, body: &str) -> io::Result<()> {
        let answer = format!(
            "HTTP/1.1 {status}\r\ndate: Sat, 21 Nov 2026 20:00:00 GMT\r\nserver: uvicorn\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(answer.as_bytes())
    }

    fn stream(&mut self) -> io::Result<()> {
        let script = self.pace.script();
        let chunk = CHUNK.replace("MODEL", self.model);
        let chunk = format!("{:x}\r\n{chunk}\n\n\r\n", chunk.len() + 2);
        let done = format!("{:x}\r\n{DONE}\r\n0\r\n\r\n", DONE.len());
        if script.together {
            let all = [STREAM_HEAD, &chunk.repeat(script.chunks), &done].concat();
            return self.stream.write_all(all.as_bytes());
        }
        for number in 1..=script.chunks {
            self.pace.wait_for(number);
            match number {
                1 => self.stream.write_all([STREAM_HEAD, &chunk].concat().as_bytes())?,
                _ => self.stream.write_all(chunk.as_bytes())?,
            }
        }
        self.pace.wait_for(script.chunks + 1);
        self.stream.write_all(done.as_bytes())
    }
}
