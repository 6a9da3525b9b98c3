//! An answer as server-sent events.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{Api, Finish, Label, Sink, Told};

/// What is reserved at a time: a few hundred chunks share one allocation.
const ROOM: usize = 16 * 1024;

/// Makes events of text. What is the same in each is made once.
pub(crate) struct Events {
    api: Api,
    /// Everything up to the choice's text.
    before: Bytes,
    /// Everything after it.
    after: Bytes,
    /// Everything up to the list of choices.
    head: Bytes,
    wants_usage: bool,
    begun: bool,
    out: BytesMut,
}

impl Events {
    pub(crate) fn new(label: &Label, wants_usage: bool) -> Self {
        let object = match label.api {
            Api::Chat => "chat.completion.chunk",
            Api::Completion => "text_completion",
        };
        let mut head = BytesMut::new();
        head.put_slice(b"data: {\"id\":");
        json(&mut head, &label.full_id());
        head.put_slice(b",\"object\":");
        json(&mut head, object);
        head.put_slice(b",\"created\":");
        json(&mut head, &label.created);
        head.put_slice(b",\"model\":");
        json(&mut head, &label.model);
        head.put_slice(b",\"choices\":[");
        let mut before = head.clone();
        before.put_slice(match label.api {
            Api::Chat => b"{\"index\":0,\"delta\":{\"content\":",
            Api::Completion => b"{\"index\":0,\"text\":",
        });
        let mut after = BytesMut::new();
        after.put_slice(match label.api {
            Api::Chat => b"},\"finish_reason\":null}]",
            Api::Completion => b",\"logprobs\":null,\"finish_reason\":null}]",
        });
        // The field is there in each, and the last one has the counts.
        after.put_slice(if wants_usage { b",\"usage\":null}\n\n" } else { b"}\n\n" });
        Self {
            api: label.api,
            before: before.freeze(),
            after: after.freeze(),
            head: head.freeze(),
            wants_usage,
            begun: false,
            out: BytesMut::new(),
        }
    }

    /// The last events.
    pub(crate) fn finish(&mut self, told: Told) {
        self.out.put_slice(&self.head);
        let role = if self.begun { "{" } else { "{\"role\":\"assistant\",\"content\":\"\"" };
        match self.api {
            Api::Chat => {
                self.out.put_slice(b"{\"index\":0,\"delta\":");
                self.out.put_slice(role.as_bytes());
                self.out.put_slice(b"},\"finish_reason\":");
            }
            Api::Completion => {
                self.out.put_slice(b"{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":");
            }
        }
        json::<Finish>(&mut self.out, &told.finish);
        self.out.put_slice(if self.wants_usage { b"}],\"usage\":null}\n\n" } else { b"}]}\n\n" });
        if let Some(usage) = told.usage.filter(|_| self.wants_usage) {
            self.out.put_slice(&self.head);
            self.out.put_slice(b"],\"usage\":");
            json(&mut self.out, &usage);
            self.out.put_slice(b"}\n\n");
        }
        self.out.put_slice(b"data: [DONE]\n\n");
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// What there is; empty if nothing.
    pub(crate) fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }
}

impl Sink for Events {
    fn text(&mut self, text: &str) {
        let wanted = self.before.len() + text.len() + self.after.len() + 32;
        if self.out.capacity() - self.out.len() < wanted {
            self.out.reserve(wanted.max(ROOM));
        }
        if !self.begun && self.api == Api::Chat {
            self.out.put_slice(&self.head);
            self.out.put_slice(b"{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":");
        } else {
            self.out.put_slice(&self.before);
        }
        self.begun = true;
        json(&mut self.out, text);
        self.out.put_slice(&self.after);
    }
}

fn json<T: Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    // Neither can fail: a `BytesMut` grows, and these types are plain.
    let _ = serde_json::to_writer(out.writer(), value);
}
