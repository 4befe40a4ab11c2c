// The chunks of a stream, and then what the client's own helper gathers from another one.
import OpenAI from "openai";

const [baseURL, asked] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused" });
const body = { ...JSON.parse(asked), stream: true, stream_options: { include_usage: true } };

const chunks = [];
for await (const chunk of await client.chat.completions.create(body)) chunks.push(chunk);
const gathered = await client.chat.completions.stream(body).finalChatCompletion();
console.log(JSON.stringify({ chunks, gathered }));
