/** Real clients of other makers, as they are installed, against this server over a socket; docs/clients.md shows them. */
import { readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { AI_SDK } from "./ai-sdk.ts"
import { ANTHROPIC_NODE } from "./anthropic-node.ts"
import { type Client, rowOf, versionOf } from "./client.ts"
import { LANGCHAIN } from "./langchain.ts"
import { OPENAI_NODE } from "./openai-node.ts"
import { type ClientServer, clientServer } from "./server.ts"

const CLIENTS: readonly Client[] = [OPENAI_NODE, ...AI_SDK, ...LANGCHAIN, ANTHROPIC_NODE]

let server: ClientServer
beforeAll(async () => {
  server = await clientServer()
})
afterAll(() => server.close())

describe.each(CLIENTS)("$name", ({ calls }) => {
  test.each(Object.entries(calls))("%s", (_, call) => call(server))
})

test("docs/clients.md has each of them, and no other", () => {
  const page = readFileSync(join(resolve(import.meta.dirname, "../.."), "docs/clients.md"), "utf8")
  // Those of other languages have sections, and tests, of their own.
  const section = page.split("\n## JavaScript\n")[1]!.split("\n## ")[0]!
  const rows = section.split("\n").filter((line) => /^\| (?!---|client)/.test(line))
  const node = CLIENTS.map(({ calls, ...client }) => {
    const versions = client.packages.map((name) => `${name} ${versionOf(name)}`)
    return rowOf({ ...client, versions, calls: Object.keys(calls) })
  })
  expect(rows).toEqual(node)
})
