/** A server that clients are tried against: its engine answers as a model would that does what it is told. */
import { testServer } from "../../src/http/testing.ts"

/** One way in which models write calls, blank for blank: another would be held to this one. */
function call(name: string, args: Readonly<Record<string, string>>): string {
  const fields = Object.entries(args).map(([field, value]) => `"${field}": ${JSON.stringify(value)}`)
  return `<tool_call>\n{"name": "${name}", "arguments": {${fields.join(", ")}}}\n</tool_call>`
}

const ELM = { name: "elm", height: 7 }

/** By what the prompt says last. */
function answerTo(prompt: string): string | undefined {
  if (/<tool_response>|^tool$/m.test(prompt)) return "It is cold in Oslo."
  if (prompt.includes("THINK.")) return "<think>\nLet me see.\n</think>\n\nIt is so."
  // Said again with what was wrong with the first answer: clients that validate do so.
  if (prompt.includes("Name a tall plant."))
    return JSON.stringify({ name: "oak", height: /validation error/i.test(prompt) ? 9 : 1 })
  if (prompt.includes("Name a plant.")) return JSON.stringify(ELM)
  if (prompt.includes("Name two plants.")) return JSON.stringify({ tasks: [ELM, { ...ELM, name: "oak" }] })
  if (prompt.includes("transfer_to_weather")) return call("transfer_to_weather", {})
  if (!prompt.includes('"weather"')) return undefined
  if (prompt.includes("in Oslo and in Rome?"))
    return `${call("weather", { city: "Oslo" })}\n${call("weather", { city: "Rome" })}`
  if (prompt.includes("What is the weather in Oslo?")) return call("weather", { city: "Oslo" })
  return undefined
}

export type ClientServer = Awaited<ReturnType<typeof clientServer>>

/** Listens; `v1` is what clients call its base URL. */
export async function clientServer() {
  const server = await testServer({
    listen: true,
    // So that an answer may last a minute: clients that leave it do so long before its end, however slow the machine.
    limits: { contextTokens: 65_536, kvTokens: 131_072 },
    fake: { script: (_, prompt) => answerTo(prompt) },
    tenancy: { tenants: [{ name: "alice", weight: 1, keys: ["sk-alice"] }] },
  })
  return { ...server, v1: `${server.url}/v1`, key: "sk-alice", model: "fake" }
}
