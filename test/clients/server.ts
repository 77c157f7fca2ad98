/** A server that clients are tried against: its engine answers as a model would that does what it is told. */
import { testServer } from "../../src/http/testing.ts"

/** One way in which models write calls. */
const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'

/** By what the prompt says last. */
function answerTo(prompt: string): string | undefined {
  if (prompt.includes("<tool_response>")) return "It is cold in Oslo."
  if (prompt.includes("THINK.")) return "<think>\nLet me see.\n</think>\n\nIt is so."
  if (prompt.includes("What is the weather in Oslo?") && prompt.includes('"weather"')) return CALL
  return undefined
}

export type ClientServer = Awaited<ReturnType<typeof clientServer>>

/** Listens; `v1` is what clients call its base URL. */
export async function clientServer() {
  const server = await testServer({
    listen: true,
    limits: { contextTokens: 4096 },
    fake: { script: (_, prompt) => answerTo(prompt) },
    tenancy: { tenants: [{ name: "alice", weight: 1, keys: ["sk-alice"] }] },
  })
  return { ...server, v1: `${server.url}/v1`, key: "sk-alice", model: "fake" }
}
