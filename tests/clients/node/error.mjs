// What the client throws.
import OpenAI from "openai";

const [baseURL, asked] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
try {
  await client.chat.completions.create(JSON.parse(asked));
} catch (error) {
  const { status, type, code, param, requestID, message } = error;
  console.log(JSON.stringify({ name: error.constructor.name, status, type, code, param, requestID, message }));
}
