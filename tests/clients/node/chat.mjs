// A whole answer.
import OpenAI from "openai";

const [baseURL, asked] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused" });
console.log(JSON.stringify(await client.chat.completions.create(JSON.parse(asked))));
