// OpenAI's own Node client against the gateway. One check per call: node client.mjs BASE_URL KEY MODEL CHECK
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, apiKey, model, check] = process.argv.slice(2);
const options = { baseURL, apiKey, maxRetries: 0, timeout: 30_000 };
const client = new OpenAI(options);
const messages = [{ role: "user", content: "Tell me a story" }];

const checks = {
  async models() {
    const ids = [];
    for await (const entry of client.models.list()) ids.push(entry.id);
    assert.deepEqual(ids, [model]);
    assert.equal((await client.models.retrieve(model)).object, "model");
  },

  async chat() {
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 12 });
    assert.equal(answer.choices[0].message.content.trim().split(/\s+/).length, 12);
    assert.equal(answer.usage.completion_tokens, 12);
  },

  async stream() {
    const stream = await client.chat.completions.create({
      model, messages, max_tokens: 12, stream: true, stream_options: { include_usage: true },
    });
    let words = 0;
    let last;
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) words += 1;
      last = chunk;
    }
    assert.equal(words, 12);
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, 12);
  },

  async unknown_fields() {
    const answer = await client.chat.completions.create({
      model, messages, max_tokens: 16, grammar: 'root ::= "just this"',
    });
    assert.equal(answer.choices[0].message.content, "just this");
    assert.ok(answer.timings.predicted_n > 0);
  },

  async tools() {
    const parameters = { type: "object", properties: { city: { type: "string" } } };
    const tools = [{ type: "function", function: { name: "weather", description: "Tell it", parameters } }];
    const count = async (more) =>
      (await client.chat.completions.create({ model, messages, max_tokens: 1, ...more })).usage.prompt_tokens;
    assert.ok((await count({ tools })) > (await count({})) + 50);
  },

  async logprobs() {
    const answer = await client.chat.completions.create({
      model, messages, max_tokens: 3, logprobs: true, top_logprobs: 4,
    });
    assert.equal(answer.choices[0].logprobs.content.length, 3);
    assert.equal(answer.choices[0].logprobs.content[0].top_logprobs.length, 4);
  },

  async abort() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 1500, stream: true });
    let seen = 0;
    for await (const _ of stream) {
      seen += 1;
      if (seen === 5) stream.controller.abort();
    }
    assert.ok(seen < 1500);
  },

  async wrong_key() {
    const stranger = new OpenAI({ ...options, apiKey: "wrong-key-1234" });
    await assert.rejects(stranger.chat.completions.create({ model, messages }), (error) => {
      assert.ok(error instanceof OpenAI.AuthenticationError);
      assert.equal(error.code, "invalid_api_key");
      return !error.message.includes("wrong-key-1234");
    });
  },

  async unknown_model() {
    await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      return error.code === "model_not_found";
    });
  },

  async bad_input() {
    for (const bad of [{ model: "", messages }, { model, messages: "not a list" }]) {
      await assert.rejects(client.chat.completions.create(bad), (error) => error instanceof OpenAI.BadRequestError);
    }
  },
};

if (check === "list") {
  console.log(Object.keys(checks).join(" "));
} else {
  await checks[check]();
}
