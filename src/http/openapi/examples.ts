/** Bodies that clients may send as they are. */
import type { Example } from "./operation.ts"

type Examples = Readonly<Record<string, Example>>

const messages = [{ role: "user", content: "Write a haiku about queues." }]
const weather = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
}

export const CHAT: Examples = {
  objectives: {
    summary: "With objectives: the first token within 800 ms, then one each 60 ms",
    value: { messages, max_tokens: 60, slo: { ttft_ms: 800, tpot_ms: 60 } },
  },
  streaming: {
    summary: "With events, of an SLO class",
    value: { messages, max_tokens: 60, stream: true, slo: { class: "chat" } },
  },
  schema: {
    summary: "JSON that fits a schema",
    value: {
      messages: [{ role: "user", content: "Where is it warm?" }],
      max_tokens: 100,
      response_format: { type: "json_schema", json_schema: { name: "place", schema: weather } },
    },
  },
  tools: {
    summary: "A call of a function",
    value: {
      messages: [{ role: "user", content: "What is the weather in Oslo?" }],
      max_tokens: 100,
      tools: [{ type: "function", function: { name: "weather", parameters: weather } }],
      tool_choice: "required",
    },
  },
}

export const COMPLETION: Examples = {
  text: { summary: "A text goes on", value: { prompt: "Once upon a time", max_tokens: 20 } },
  scores: {
    summary: "Log-probabilities of a prompt, as evaluation harnesses ask for them",
    value: { prompt: "Once upon a time", max_tokens: 0, echo: true, logprobs: 1 },
  },
}

export const RESPONSES: Examples = {
  text: {
    summary: "A text",
    value: {
      input: "Write a haiku about queues.",
      instructions: "Be brief.",
      max_output_tokens: 60,
      slo: { ttft_ms: 800 },
    },
  },
}

export const MESSAGES: Examples = {
  text: { summary: "A text", value: { messages, max_tokens: 60, slo: { ttft_ms: 800 } } },
}

export const COUNT: Examples = { text: { summary: "Of a text", value: { messages } } }

export const EMBEDDINGS: Examples = {
  texts: {
    summary: "Of two texts, within two seconds",
    value: { input: ["A tree in spring.", "A forest."], slo: { ttft_ms: 2000 } },
  },
}

export const TOKENIZE: Examples = {
  text: { summary: "Of a text", value: { prompt: "Once upon a time", return_token_strs: true } },
  chat: { summary: "Of a conversation", value: { messages } },
}

export const DETOKENIZE: Examples = { tokens: { summary: "Of tokens", value: { tokens: [1, 2, 3] } } }
