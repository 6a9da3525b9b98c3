//! A client of fixed bytes on one blocking socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use memchr::memmem;

use crate::gateway::CLIENT_TOKEN;

/// One connection to the gateway, with what was read of the answer under way.
pub(crate) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

/// A request's bytes, with a prompt of about so many.
pub(crate) fn request(model: &str, prompt: usize, is_stream: bool) -> Vec<u8> {
    let prompt = "Tell me about the weather in the mountains. ".repeat(prompt / 44 + 1);
    let stream = if is_stream { r#","stream":true"# } else { "" };
    let body = format!(
        r#"{{"model":"{model}","messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"{prompt}"}}],"max_tokens":64{stream}}}"#
    );
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\naccept: application/json\r\n\
         authorization: Bearer {CLIENT_TOKEN}\r\nuser-agent: OpenAI/Python 2.8.0\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.read.clear();
        self.stream.write_all(request)
    }

    /// Reads the whole of an answer that gives its length in its headers. Its status.
    pub(crate) fn status(&mut self) -> io::Result<u16> {
        let body = loop {
            self.read_more()?;
            if let Some(end) = memmem::find(&self.read, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.read[..body]).to_lowercase();
        let field = |before, after| head.split(before).nth(1).and_then(|rest| rest.split(after).next());
        let length: usize =
            field("content-length: ", "\r\n").and_then(|length| length.parse().ok()).unwrap_or(0);
        while self.read.len() < body + length {
            self.read_more()?;
        }
        Ok(field("http/1.1 ", " ").and_then(|status| status.parse().ok()).unwrap_or(0))
    }

    /// Reads until so many events of a stream are there.
    pub(crate) fn read_events(&mut self, events: usize) -> io::Result<()> {
        while memmem::find_iter(&self.read, b"\n\n").count() < events {
            self.read_more()?;
        }
        Ok(())
    }

    /// Reads to the end of the answer, if it is a stream.
    pub(crate) fn read_end(&mut self) -> io::Result<()> {
        if self.read.ends_with(b"}") {
            return Ok(());
        }
        while !self.read.ends_with(b"0\r\n\r\n") {
            self.read_more()?;
        }
        if !self.read.starts_with(b"HTTP/1.1 200") || memmem::find(&self.read, b"[DONE]").is_none() {
            return Err(io::Error::other(String::from_utf8_lossy(&self.read).into_owned()));
        }
        Ok(())
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 << 10];
        let read = self.stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway closed the connection"));
        }
        self.read.extend_from_slice(&buffer[..read]);
        Ok(())
    }
}
