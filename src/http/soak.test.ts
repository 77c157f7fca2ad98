/** Nothing is kept of streams that have ended or whose reader has gone: neither of the request nor of its answer. */
import { expect, it } from "vitest"
import { complete, connect } from "../load/client.ts"
import { keptBytes, liveBytes } from "../replica/testing.ts"
import { testServer } from "./testing.ts"

const READERS = 16
/** Streams between two measurements. */
const BLOCK = 300
/** Of an ended stream; one takes several times as much while it is open. */
const MOST_KEPT_BYTES = 1000

it("keeps nothing of ended streams", { timeout: 120_000, retry: 1 }, async () => {
  const cost = { pieces: [{ step: 200, tokens: 1 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true }
  // What the journal remembers of the last ones on purpose is all there after the first streams.
  const server = await testServer({ listen: true, fake: { cost }, journal: { most: 32 } })
  const connections = connect(server.url)
  const target = { url: server.url, kind: "slos-serve" as const, model: "fake" }
  const ends = new Map<string, number>()

  const stream = async (index: number) => {
    const reader = new AbortController()
    const gone = index % 10 === 0
    const request = {
      prompt: Array.from({ length: 40 }, (_, i) => (index * 7 + i * i) % 250),
      outputTokens: 8,
      thinkingTokens: 0,
      slo: { ttftMs: 10_000, tpotMs: 500, thinkingTpotMs: 500, maxGapMs: Infinity },
      class: "chat",
      session: null,
    }
    const onTokens = () => {
      if (gone) reader.abort()
    }
    const { end } = await complete(connections, target, request, {
      ...{ timeoutMs: 60_000, onTokens },
      signal: reader.signal,
    })
    ends.set(end, (ends.get(end) ?? 0) + 1)
  }
  const bytes: number[] = []
  for (let block = 0; block < 5; block++) {
    let sent = 0
    const read = async () => {
      while (sent < BLOCK) await stream(sent++)
    }
    await Promise.all(Array.from({ length: READERS }, read))
    bytes.push(liveBytes())
  }
  connections.agent.destroy()
  await server.close()
  expect(Object.fromEntries(ends)).toEqual({ ok: 4.5 * BLOCK, abandoned: 0.5 * BLOCK })
  expect(keptBytes(bytes, BLOCK), `live bytes after each block: ${bytes}`).toBeLessThan(MOST_KEPT_BYTES)
})
