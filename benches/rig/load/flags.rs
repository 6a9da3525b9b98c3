//! What is asked for, how often, and the bytes of the request.

use std::time::Duration;

use clap::Parser;
use gateway_benches::wire::script::Script;

/// A load of completions.
#[derive(Parser, Debug)]
pub(super) struct Flags {
    /// Where the gateway listens, on 127.0.0.1
    #[arg(long)]
    pub(super) port: u16,
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    #[arg(long, default_value = "mock-model")]
    model: String,
    /// A header of the request, such as "Authorization: Bearer x"; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// How many; with a rate, the most that may be under way
    #[arg(long, default_value_t = 64)]
    pub(super) connections: usize,
    /// Requests per second; 0: each connection asks again when its answer has come
    #[arg(long, default_value_t = 0.0)]
    pub(super) rate: f64,
    /// How long is measured
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How long is waited before that
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Ends after so many requests, even if the time is not over; 0: it does not
    #[arg(long, default_value_t = 0)]
    pub(super) requests: u64,
    /// Bytes of the prompt, its first words included
    #[arg(long, default_value_t = 300)]
    prompt_bytes: usize,
    /// Ask for streams
    #[arg(long)]
    pub(super) stream: bool,
    /// Chunks that each stream is to have
    #[arg(long, default_value_t = 100)]
    pub(super) chunks: u32,
    /// From one chunk to the next
    #[arg(long, default_value_t = 0)]
    interval_us: u64,
    /// How long the engine takes before it answers
    #[arg(long, default_value_t = 0)]
    delay_us: u64,
    /// Opens one stream on each connection, says so in a line, and holds them until standard input ends
    #[arg(long, requires = "stream")]
    pub(super) hold: bool,
    /// Source addresses, 127.0.0.1 and so on: each has some 28,000 ports
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(super) sources: u8,
}

impl Flags {
    pub(super) fn seconds(&self) -> u64 {
        (self.seconds * 1e9) as u64
    }

    pub(super) fn warmup(&self) -> u64 {
        (self.warmup * 1e9) as u64
    }

    /// The request, which is the same each time.
    pub(super) fn request(&self) -> Vec<u8> {
        let script = Script {
            // A plain answer is one chunk to those who gather it from a stream.
            chunks: if self.stream { self.chunks } else { 1 },
            interval: Duration::from_micros(self.interval_us),
            delay: Duration::from_micros(self.delay_us),
        };
        let stream = if self.stream { r#","stream":true"# } else { "" };
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"{}"}}],"model":"{}","max_tokens":256{stream}}}"#,
            prompt(&script, self.prompt_bytes),
            self.model,
        );
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Accept: {}\r\nUser-Agent: rig-load\r\n",
            self.path,
            self.port,
            if self.stream { "text/event-stream" } else { "application/json" },
        );
        for header in &self.headers {
            head += header;
            head += "\r\n";
        }
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }
}

/// Text with a line's end now and then, as people write, escaped for JSON.
fn prompt(script: &Script, bytes: usize) -> String {
    const TEXT: &str =
        "Tell me of a machine that counts chunks from morning to night, and of who hears it.\\n";
    let mut prompt = script.words() + " ";
    while prompt.len() + TEXT.len() <= bytes {
        prompt += TEXT;
    }
    let rest = bytes.saturating_sub(prompt.len());
    prompt + &"x".repeat(rest)
}
