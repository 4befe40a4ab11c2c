// What a tool was called with by the client's own loop, and how the conversation then stands.
import OpenAI from "openai";

const [baseURL, asked] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused" });
const called = [];
const tool = {
  name: "get_weather",
  description: "The weather in a city.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  parse: JSON.parse,
  function: (given) => called.push(given) && "It is sunny.",
};
const runner = client.chat.completions.runTools({
  ...JSON.parse(asked),
  tools: [{ type: "function", function: tool }],
  tool_choice: { type: "function", function: { name: "get_weather" } },
});
await runner.done();
console.log(JSON.stringify({ called, messages: runner.messages }));
