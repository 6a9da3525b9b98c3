//! An OpenAI request on its way through the contract.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gateway_core::{Claim, LinkBody, LinkError, LinkRequest, LinkResponse, RequestBody};
use http::{HeaderValue, Method, Response, header};
use http_body::Body as _;
use prost::Message as _;
use tokio::time::Instant;

use super::answer::Answer;
use super::call::Question;
use super::dial::Dialler;
use super::reader::{Fault, Reader, Step};
use crate::contract::{Contract, Dialect, Packaged, Plain, StreamPredictRequest};
use crate::status::to_http;
use crate::translate::{Api, Asked, Defaults, Events, Refusal, Whole, asked, grpc_timeout};

pub(super) async fn predict(dialler: &Arc<Dialler>, request: LinkRequest) -> Result<LinkResponse, LinkError> {
    let (head, body) = request.into_parts();
    let api = match (&head.method, head.uri.path()) {
        (&Method::POST, "/v1/chat/completions") => Api::Chat,
        (&Method::POST, "/v1/completions") => Api::Completion,
        _ => return Ok(Refusal::elsewhere(head.uri.path()).into_answer()),
    };
    // First of all, so that a body that can be read only once is not read for nothing.
    let live = dialler.live().await?;
    let settings = &dialler.settings;
    let Some(body) = gather(body, settings.message_limit).await? else {
        return Ok(Refusal::too_long(settings.message_limit).into_answer());
    };
    let defaults = Defaults { template: &settings.template, adapter: &settings.adapter };
    let claim = head.extensions.get::<Claim>();
    let asked = match asked(api, &head.headers, claim, &body, &defaults) {
        Ok(asked) => asked,
        Err(refusal) => return Ok(refusal.into_answer()),
    };
    drop(body);
    let Asked { request, timeout, label, streams, wants_usage, stop } = asked;
    if request.encoded_len() > settings.message_limit {
        return Ok(Refusal::too_long(settings.message_limit).into_answer());
    }
    let (path, question) = match live.dialect {
        Dialect::Packaged => predict_message::<Packaged>(request),
        Dialect::Plain => predict_message::<Plain>(request),
    };
    let due = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let call = live.wire.predict(path, question, timeout.and_then(grpc_timeout)).inspect_err(|_| {
        if !live.wire.is_open() {
            dialler.spent(&live);
        }
    })?;
    let reader = Reader::new(call, stop, due);
    if streams {
        let begun = Answer::new(reader, Events::new(&label, wants_usage)).begin().await;
        return begun.map(|begun| answer("text/event-stream", LinkBody::new(begun))).or_else(declined);
    }
    match gather_answer(reader, settings.message_limit).await {
        Ok((whole, told)) => Ok(answer("application/json", LinkBody::full(whole.finish(&label, told)))),
        Err(fault) => declined(fault),
    }
}

fn predict_message<C: Contract>(request: StreamPredictRequest) -> (&'static str, Question) {
    (C::STREAM_PREDICT, Question::new::<C>(request))
}

fn answer(content_type: &'static str, body: LinkBody) -> LinkResponse {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Nothing has gone to the client yet.
fn declined(fault: Fault) -> Result<LinkResponse, LinkError> {
    match fault {
        Fault::Status(status) => Ok(to_http::answer(&status)),
        Fault::Link(error) => Err(error),
    }
}

async fn gather_answer(mut reader: Reader, limit: usize) -> Result<(Whole, crate::translate::Told), Fault> {
    let mut whole = Whole::new();
    loop {
        match std::future::poll_fn(|cx| reader.poll_step(cx, &mut whole)).await? {
            Step::Done(told) => return Ok((whole, told)),
            Step::Text if whole.len() > limit => {
                return Err(Fault::Link(LinkError::lost("the answer is longer than is allowed")));
            }
            Step::Text => {}
        }
    }
}

/// The whole body; `None` if it is too long. One that is held in one piece is not copied.
async fn gather(mut body: RequestBody, limit: usize) -> Result<Option<Bytes>, LinkError> {
    if body.len().is_some_and(|len| len > limit as u64) {
        return Ok(None);
    }
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.map_err(LinkError::request_body)?.into_data() else { continue };
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&data);
        }
        if first.len() + more.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(if more.is_empty() { first } else { more.freeze() }))
}
