// A whole response of the Responses API, and the text that comes in pieces.
import OpenAI from "openai";

const [baseURL, asked] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused" });
const whole = await client.responses.create(JSON.parse(asked));
const deltas = [];
for await (const event of await client.responses.create({ ...JSON.parse(asked), stream: true })) {
  if (event.type === "response.output_text.delta") deltas.push(event.delta);
}
console.log(JSON.stringify({ status: whole.status, text: whole.output_text, deltas }));
