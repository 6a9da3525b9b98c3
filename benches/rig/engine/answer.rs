//! What is asked, and the bytes of the answers.

use std::io::Write;

use gateway_benches::wire::script::Script;
use memchr::memmem;

/// What of a body is looked at: its beginning and its end, so that a large prompt costs nothing but its reading.
#[derive(Debug, Default)]
pub(super) struct Sample {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Sample {
    /// Of either end. The script is at the beginning of the prompt, `stream` after or before it.
    const BYTES: usize = 1024;

    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.tail.clear();
    }

    pub(super) fn add(&mut self, piece: &[u8]) {
        let (head, rest) = piece.split_at(piece.len().min(Self::BYTES - self.head.len()));
        self.head.extend_from_slice(head);
        if rest.len() >= Self::BYTES {
            self.tail.clear();
        }
        self.tail.extend_from_slice(&rest[rest.len().saturating_sub(Self::BYTES)..]);
        if let Some(older) = self.tail.len().checked_sub(Self::BYTES) {
            self.tail.drain(..older);
        }
    }

    fn has(&self, text: &[u8]) -> bool {
        memmem::find(&self.head, text).is_some() || memmem::find(&self.tail, text).is_some()
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// Something that is known without a look at the body.
    Page(Page),
    Completion {
        form: Form,
        stream: bool,
        usage: bool,
        script: Script,
    },
}

/// Which of OpenAI's APIs is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Page {
    Health,
    Models,
    Metrics,
    Totals,
    Unknown,
}

impl Asked {
    pub(super) fn of(head: &[u8], sample: &Sample) -> Self {
        let mut words = head.split(|byte| *byte == b' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        let form = match (method, path) {
            (b"POST", b"/v1/chat/completions") => Form::Chat,
            (b"POST", b"/v1/completions") => Form::Text,
            (b"GET", b"/health") => return Self::Page(Page::Health),
            (b"GET", b"/v1/models") => return Self::Page(Page::Models),
            (b"GET", b"/metrics") => return Self::Page(Page::Metrics),
            (b"GET", b"/totals") => return Self::Page(Page::Totals),
            _ => return Self::Page(Page::Unknown),
        };
        Self::Completion {
            form,
            stream: sample.has(br#""stream":true"#) || sample.has(br#""stream": true"#),
            usage: sample.has(br#""include_usage":true"#) || sample.has(br#""include_usage": true"#),
            script: Script::find(&sample.head).or_else(|| Script::find(&sample.tail)).unwrap_or_default(),
        }
    }
}

/// A whole answer with its head.
pub(super) fn page(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The bytes that are the same in all answers, made once.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) health: Vec<u8>,
    pub(super) models: Vec<u8>,
    pub(super) unknown: Vec<u8>,
    /// The head of a stream.
    pub(super) stream: Vec<u8>,
    chat: Completions,
    text: Completions,
}

impl Texts {
    pub(super) fn new() -> Self {
        let models = concat!(
            r#"{"object":"list","data":[{"id":"mock-model","object":"model","created":1700000000,"#,
            r#""owned_by":"vllm","max_model_len":32768}]}"#
        );
        let stream = concat!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n",
            "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        Self {
            health: page("200 OK", "application/json", ""),
            models: page("200 OK", "application/json", models),
            unknown: page("404 Not Found", "application/json", r#"{"error":{"message":"not found"}}"#),
            stream: stream.into(),
            chat: Completions::new(Form::Chat),
            text: Completions::new(Form::Text),
        }
    }

    pub(super) fn of(&mut self, form: Form) -> &mut Completions {
        match form {
            Form::Chat => &mut self.chat,
            Form::Text => &mut self.text,
        }
    }

    /// vLLM's metrics, as far as gateways read them.
    pub(super) fn metrics(running: u64) -> Vec<u8> {
        let body = format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{model_name=\"mock-model\"}} {running}.0\n\
             # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{model_name=\"mock-model\"}} 0.0\n"
        );
        page("200 OK", "text/plain; version=0.0.4", &body)
    }
}

/// The completions of one form.
#[derive(Debug)]
pub(super) struct Completions {
    form: Form,
    pub(super) plain: Vec<u8>,
    /// The first event of a stream, which tells the role; of text there is none.
    pub(super) role: Vec<u8>,
    chunk: Vec<u8>,
    stamp_at: usize,
}

impl Completions {
    const STAMP: &str = "@T0000000000000000000";

    fn new(form: Form) -> Self {
        let choice = |content: &str, finish: &str| match form {
            Form::Chat => format!(
                r#"{{"index":0,"message":{{"role":"assistant","content":"{content}"}},"logprobs":null,"finish_reason":{finish}}}"#
            ),
            Form::Text => {
                format!(r#"{{"index":0,"text":"{content}","logprobs":null,"finish_reason":{finish}}}"#)
            }
        };
        let object = if form == Form::Chat { "chat.completion" } else { "text_completion" };
        let plain = format!(
            r#"{{"id":"mock-000000000001","object":"{object}","created":1700000000,"model":"mock-model","choices":[{}],"usage":{{"prompt_tokens":10,"completion_tokens":6,"total_tokens":16}}}}"#,
            choice("Hello from the mock engine.", r#""stop""#)
        );
        let role = match form {
            Form::Chat => piece(&event(form, &delta(form, r#""role":"assistant","content":"""#, "null"))),
            Form::Text => Vec::new(),
        };
        let content = match form {
            Form::Chat => format!(r#""content":"{} ""#, Self::STAMP),
            Form::Text => format!("{} ", Self::STAMP),
        };
        let chunk = piece(&event(form, &delta(form, &content, "null")));
        let stamp_at = memmem::find(&chunk, b"@T").map_or(0, |at| at + 2);
        Self { form, plain: page("200 OK", "application/json", &plain), role, chunk, stamp_at }
    }

    /// A chunk that is sent now.
    pub(super) fn chunk(&mut self, now: u64) -> &[u8] {
        let digits = &mut self.chunk[self.stamp_at..][..Self::STAMP.len() - 2];
        let mut rest = now;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        &self.chunk
    }

    /// What comes after the last chunk.
    pub(super) fn end(&self, chunks: u32, usage: bool) -> Vec<u8> {
        let mut events = event(self.form, &delta(self.form, "", r#""stop""#));
        if usage {
            let total = chunks + 10;
            events += &event(
                self.form,
                &format!(
                    r#""choices":[],"usage":{{"prompt_tokens":10,"completion_tokens":{chunks},"total_tokens":{total}}}"#
                ),
            );
        }
        events += "data: [DONE]\n\n";
        let mut end = piece(&events);
        end.extend_from_slice(b"0\r\n\r\n");
        end
    }
}

/// The choices of an event: of chat, the fields of the delta; of text, the text.
fn delta(form: Form, what: &str, finish: &str) -> String {
    match form {
        Form::Chat => {
            format!(
                r#""choices":[{{"index":0,"delta":{{{what}}},"logprobs":null,"finish_reason":{finish}}}]"#
            )
        }
        Form::Text => {
            format!(r#""choices":[{{"index":0,"text":"{what}","logprobs":null,"finish_reason":{finish}}}]"#)
        }
    }
}

fn event(form: Form, rest: &str) -> String {
    let object = if form == Form::Chat { "chat.completion.chunk" } else { "text_completion" };
    format!(
        "data: {{\"id\":\"mock-000000000001\",\"object\":\"{object}\",\
         \"created\":1700000000,\"model\":\"mock-model\",{rest}}}\n\n"
    )
}

/// One chunk of the chunked transfer coding.
fn piece(data: &str) -> Vec<u8> {
    let mut piece = Vec::with_capacity(data.len() + 8);
    let _ = write!(piece, "{:x}\r\n{data}\r\n", data.len());
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_body_are_seen() {
        let body = format!(
            r#"{{"messages":[{{"content":"@mock chunks=3; {}"}}],"stream":true}}"#,
            "x".repeat(100_000)
        );
        for step in [1, 700, 4096, body.len()] {
            let mut sample = Sample::default();
            body.as_bytes().chunks(step).for_each(|piece| sample.add(piece));
            let asked = Asked::of(b"POST /v1/chat/completions HTTP/1.1\r\n\r\n", &sample);
            let Asked::Completion { form: Form::Chat, stream: true, usage: false, script } = asked else {
                panic!("{asked:?} in steps of {step}")
            };
            assert_eq!(script.chunks, 3);
        }
    }

    #[test]
    fn a_chunk_tells_when_it_was_sent() {
        let mut texts = Texts::new();
        for (form, field) in [(Form::Chat, "content"), (Form::Text, "text")] {
            let chunk = String::from_utf8(texts.of(form).chunk(1_234_567_890).to_vec()).unwrap();
            assert!(chunk.contains(&format!(r#""{field}":"@T0000000001234567890 ""#)), "{chunk}");
        }
    }
}
