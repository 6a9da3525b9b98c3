use gateway_core::{Feature, Tenant};
use serde_json::json;

use super::*;

fn read(api: Api, body: &str) -> Result<Asked, Refusal> {
    let defaults = Defaults { template: &PromptTemplate::Document, adapter: "base" };
    asked(api, &HeaderMap::new(), None, body.as_bytes(), &defaults)
}

fn chat_with(rest: &str) -> Result<Asked, Refusal> {
    read(Api::Chat, &format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{rest}}}"#))
}

fn with(headers: &[(&'static str, &str)], claim: Option<&Claim>) -> Asked {
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap()))
        .collect();
    let defaults = Defaults { template: &PromptTemplate::Document, adapter: "" };
    asked(Api::Completion, &headers, claim, br#"{"model":"m","prompt":"p"}"#, &defaults).unwrap()
}

fn prompt(template: &PromptTemplate, messages: serde_json::Value) -> Result<String, Refusal> {
    let body = json!({"model": "m", "messages": messages}).to_string();
    let defaults = Defaults { template, adapter: "" };
    asked(Api::Chat, &HeaderMap::new(), None, body.as_bytes(), &defaults).map(|asked| asked.request.prompt)
}

#[test]
fn the_contracts_defaults_hold_for_what_is_not_said() {
    let asked = chat_with("").unwrap();
    let generation = asked.request.generation.unwrap();
    assert_eq!(
        (generation.max_new_tokens, generation.temperature, generation.top_p, generation.repetition_penalty),
        (256, 0.7, 0.9, 1.0)
    );
    assert_eq!((asked.request.adapter.as_str(), asked.request.priority), ("base", 0));
    assert!(!asked.streams && !asked.wants_usage && asked.stop.is_empty() && asked.timeout.is_none());
}

#[test]
fn what_is_said_is_carried() {
    let asked = chat_with(
        r#","max_tokens":7,"temperature":0.25,"top_p":0.5,"repetition_penalty":1.25,"adapter":"tall","stream":true,
            "worker_hint":"gpu-7","user":"u-1","metadata":{"locale":"de","a":"b","c":[1,2]},"stop":["x","y"],
            "stream_options":{"include_usage":true},"seed":7,"frequency_penalty":0.5,"unknown":{"n":2}"#,
    )
    .unwrap();
    let request = asked.request;
    let generation = request.generation.unwrap();
    assert_eq!(
        (generation.max_new_tokens, generation.temperature, generation.top_p, generation.repetition_penalty),
        (7, 0.25, 0.5, 1.25)
    );
    assert_eq!((request.model_id.as_str(), request.adapter.as_str()), ("m", "tall"));
    assert_eq!(request.worker_hint, "gpu-7");
    let metadata = request.metadata.unwrap();
    assert_eq!((metadata.player_id.as_str(), metadata.locale.as_str()), ("u-1", "de"));
    assert_eq!((metadata.extra["a"].as_str(), metadata.extra["c"].as_str()), ("b", "[1,2]"));
    assert_eq!(metadata.extra.len(), 2);
    assert!(asked.streams && asked.wants_usage);
    assert_eq!(asked.stop, ["x", "y"]);
    assert_eq!(
        chat_with(r#","max_completion_tokens":3,"max_tokens":9"#)
            .unwrap()
            .request
            .generation
            .unwrap()
            .max_new_tokens,
        3
    );
    assert_eq!(chat_with(r#","lora":"l""#).unwrap().request.adapter, "l");
    assert_eq!(chat_with(r#","stop":"one""#).unwrap().stop, ["one"]);
}

#[test]
fn zero_is_said_in_other_words() {
    let greedy = chat_with(r#","temperature":0,"top_p":0.9"#).unwrap().request.generation.unwrap();
    assert_eq!((greedy.temperature, greedy.top_p), (0.01, 1e-6));
    let narrow = chat_with(r#","top_p":0"#).unwrap().request.generation.unwrap();
    assert_eq!((narrow.temperature, narrow.top_p), (0.7, 1e-6));
}

#[test]
fn headers_and_the_gateways_word() {
    let plain = with(&[], None);
    assert!(plain.request.metadata.unwrap().trace_id.starts_with("req_"));
    let asked = with(
        &[
            ("x-request-id", "r-1"),
            ("x-priority", "high"),
            ("x-worker-hint", "w"),
            ("x-request-timeout-ms", "1500"),
        ],
        None,
    );
    assert_eq!(asked.request.metadata.as_ref().unwrap().trace_id, "r-1");
    assert_eq!((asked.request.priority, asked.request.worker_hint.as_str()), (1, "w"));
    assert_eq!(grpc_timeout(asked.timeout.unwrap()).unwrap(), "1500m");
    let claim = Claim { tenant: Tenant::new("acme").ok(), priority: Priority::Low, patience: None };
    let granted = with(&[("x-priority", "high")], Some(&claim)).request;
    assert_eq!((granted.priority, granted.metadata.unwrap().tenant.as_str()), (-1, "acme"));
    let long = with(&[("x-request-timeout-ms", "4294967295")], None).timeout.unwrap();
    assert_eq!(grpc_timeout(long).unwrap(), "4294967S");
}

#[test]
fn what_has_no_place_is_refused_by_name() {
    for (rest, field) in [
        (r#""tools":[{"type":"function"}]"#, "tools"),
        (r#""functions":[{}]"#, "functions"),
        (r#""n":2"#, "n"),
        (r#""logprobs":true"#, "logprobs"),
        (r#""top_logprobs":3"#, "top_logprobs"),
        (r#""logit_bias":{"1":1}"#, "logit_bias"),
        (r#""response_format":{"type":"json_object"}"#, "response_format"),
        (r#""modalities":["text","audio"]"#, "modalities"),
        (r#""guided_json":{"a":1}"#, "guided_json"),
        (r#""web_search_options":{}"#, "web_search_options"),
    ] {
        let refusal = chat_with(&format!(",{rest}")).unwrap_err();
        assert_eq!((refusal.param.as_deref(), refusal.status.as_u16()), (Some(field), 400), "{rest}");
        assert!(refusal.message.contains(field), "{}", refusal.message);
    }
    for nothing in [
        r#""tools":[],"functions":null,"n":1,"logprobs":false,"top_logprobs":0,"logit_bias":{}"#,
        r#""response_format":{"type":"text"},"modalities":["text"],"tool_choice":"none","store":true"#,
    ] {
        chat_with(&format!(",{nothing}")).expect(nothing);
    }
    // Every one that a router knows of, so that nothing is done wrong for want of a router.
    for feature in Feature::ALL {
        let said = match feature {
            Feature::Stop | Feature::Media | Feature::Embeddings => continue,
            Feature::PromptList => json!(["a", "b"]),
            Feature::ManyAnswers | Feature::BestOf => json!(2),
            Feature::ResponseFormat => json!({"type": "json_schema"}),
            _ => json!(["something"]),
        };
        let mut body = json!({"model": "m", "prompt": "p"});
        body[feature.field()] = said;
        let refusal = read(Api::Completion, &body.to_string()).unwrap_err();
        assert_eq!(refusal.param.as_deref(), Some(feature.field()));
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    for (rest, field) in [
        (r#""temperature":"hot""#, "temperature"),
        (r#""temperature":-1"#, "temperature"),
        (r#""top_p":1.5"#, "top_p"),
        (r#""max_tokens":0"#, "max_tokens"),
        (r#""max_tokens":1.5"#, "max_tokens"),
        (r#""repetition_penalty":0"#, "repetition_penalty"),
        (r#""stream":"yes""#, "stream"),
        (r#""stop":["a","b","c","d","e"]"#, "stop"),
        (r#""metadata":7"#, "metadata"),
    ] {
        assert_eq!(chat_with(&format!(",{rest}")).unwrap_err().param.as_deref(), Some(field), "{rest}");
    }
    for (body, field) in [
        ("", None),
        ("[]", None),
        (r#"{"messages":[{"role":"user","content":"hi"}]}"#, Some("model")),
        (r#"{"model":"m"}"#, Some("messages")),
        (r#"{"model":"m","messages":[]}"#, Some("messages")),
        (r#"{"model":"m","messages":"hi"}"#, Some("messages")),
        (r#"{"model":"m","messages":[{"role":"king","content":"x"}]}"#, Some("messages[0].role")),
        (r#"{"model":"m","messages":[{"role":"tool","content":"x"}]}"#, Some("messages[0].role")),
        (r#"{"model":"m","messages":[{"role":"user"}]}"#, Some("messages[0].content")),
        (
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}]}"#,
            Some("messages[0].content[1]"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{}]}]}"#,
            Some("messages[0].tool_calls"),
        ),
    ] {
        assert_eq!(read(Api::Chat, body).unwrap_err().param.as_deref(), field, "{body}");
    }
    for prompt in ["null", "[]", "[1,2]", r#"["a","b"]"#, "7"] {
        let refusal = read(Api::Completion, &format!(r#"{{"model":"m","prompt":{prompt}}}"#)).unwrap_err();
        assert_eq!(refusal.param.as_deref(), Some("prompt"), "{prompt}");
    }
}

#[test]
fn prompts_by_each_template() {
    let user = |text: &str| json!({"role": "user", "content": text});
    let one = json!([user("Hello")]);
    let many = json!([
        {"role": "developer", "content": "Be brief."},
        user("Hi"),
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]);
    let long = "System: Be brief.\nUser: Hi\nAssistant: Hello.\nUser: a\nb\nAssistant:";
    for (template, messages, wanted) in [
        (PromptTemplate::Document, &one, "User: Hello\nAssistant:"),
        (PromptTemplate::Document, &many, long),
        (PromptTemplate::Verbatim, &one, "Hello"),
        (PromptTemplate::Verbatim, &many, long),
        (PromptTemplate::Verbatim, &json!([{"role": "system", "content": "x"}]), "System: x\nAssistant:"),
    ] {
        assert_eq!(prompt(&template, messages.clone()).unwrap(), wanted);
    }
    for (body, wanted) in [(r#""as it is""#, "as it is"), (r#"["one"]"#, "one")] {
        let asked = read(Api::Completion, &format!(r#"{{"model":"m","prompt":{body}}}"#)).unwrap();
        assert_eq!(asked.request.prompt, wanted);
    }
}

#[cfg(feature = "jinja")]
#[test]
fn templates_of_hugging_face_work() {
    use crate::translate::JinjaTemplate;

    // ChatML, as Qwen's models have it.
    let chatml = "{%- for message in messages %}\n    {{- '<|im_start|>' + message['role'] + '\\n' + message.content.strip() \
                  + '<|im_end|>' + '\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n";
    let template = PromptTemplate::Jinja(JinjaTemplate::new(chatml).unwrap());
    let messages = json!([{"role": "system", "content": " s "}, {"role": "user", "content": "u"}]);
    assert_eq!(
        prompt(&template, messages.clone()).unwrap(),
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    );
    // Llama 2's, which insists on the order of roles.
    let strict = "{{ bos_token }}{% for message in messages %}\n{% if message.role != 'user' %}\
                  {{ raise_exception('Only users speak here') }}{% endif %}\n[INST] {{ message.content | tojson }} [/INST]{{ eos_token }}\n{% endfor %}";
    let template = JinjaTemplate::new(strict).unwrap().bos_token("<s>").eos_token("</s>");
    let template = PromptTemplate::Jinja(template);
    let refusal = prompt(&template, messages).unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.param.as_deref()), (400, Some("messages")));
    assert!(refusal.message.contains("Only users speak here"), "{}", refusal.message);
    let rendered = prompt(&template, json!([{"role": "user", "content": "a\"b"}])).unwrap();
    assert_eq!(rendered, "<s>[INST] \"a\\\"b\" [/INST]</s>\n");
    let broken = JinjaTemplate::new("{% for %}").unwrap_err().to_string();
    assert!(broken.contains("chat template"), "{broken}");
}
