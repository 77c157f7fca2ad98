/** The suite of all hosts over one behind a byte stream, and what only a stream can do: end, stall, and talk nonsense. */
import { type Duplex, duplexPair } from "node:stream"
import { expect, test, vi } from "vitest"
import { GREEDY, type Sampling } from "../engine/port.ts"
import type { JobEnd, JobSink } from "../replica/host.ts"
import { hostSuite, jobOf, Kept, SUITE_MAX_QUEUE } from "../serve/host.suite.ts"
import { inProcessHost } from "../serve/host-testing.ts"
import { until } from "../serve/until-testing.ts"
import type { AnswerDelta } from "../text/answer.ts"
import { noDeltas } from "./deltas.ts"
import { encodeFrame } from "./frames.ts"
import { WireHost } from "./host.ts"
import { hello, WIRE_VERSION } from "./messages.ts"
import { WireServer } from "./server.ts"

async function wired(options: { maxQueue?: number; silenceMs?: number; digestMs?: number } = {}) {
  const [near, far] = duplexPair()
  const inner = inProcessHost({ maxQueue: options.maxQueue ?? 1000 })
  new WireServer(far, inner, { owned: true, digestMs: options.digestMs ?? 10 })
  const { silenceMs } = options
  const host = new WireHost(near, { name: "wired", ...(silenceMs !== undefined && { silenceMs }) })
  await until(() => expect(host.state).toBe("ready"))
  return { host, inner, near, far }
}

hostSuite("behind a wire", async () => {
  const { host, inner } = await wired({ maxQueue: SUITE_MAX_QUEUE })
  return { host, close: () => inner.close() }
})

/** A host with a job under way, whose stream something happens to. */
async function busy(options: { silenceMs?: number; digestMs?: number } = {}) {
  const all = await wired(options)
  const sink = new Kept()
  all.host.submit(jobOf({ maxTokens: 900 }), sink)
  await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(0))
  return { ...all, sink }
}

test("a stream that ends loses the jobs there, and the replica cancels them", async () => {
  const { host, inner, far, sink } = await busy()
  far.destroy()
  expect((await sink.over())[0]).toMatchObject({ kind: "lost", reason: "died" })
  expect(host.state).toBe("down")
  await until(() => expect(inner.digest().snapshot.running).toBe(0))
  const late = new Kept()
  host.submit(jobOf(), late)
  expect((await late.over())[0]).toMatchObject({ kind: "lost", reason: "refused" })
  expect(await host.offer(jobOf(), 1000)).toMatchObject({ takes: false })
  expect(await host.withdraw(1)).toBe(false)
  await inner.close()
})

test("the replica lets the jobs of a gateway go that is gone", async () => {
  const { inner, near } = await busy()
  near.destroy()
  await until(() => expect(inner.digest().snapshot.running).toBe(0))
  await inner.close()
})

test("a replica that says nothing for too long is lost", async () => {
  const { host, sink, inner } = await busy({ silenceMs: 200, digestMs: 3_600_000 })
  // Its job speaks for it until it ends.
  expect((await sink.over())[0]?.kind).toBe("finished")
  await until(() => expect(host.state).toBe("down"))
  expect(host.detail).toContain("said nothing")
  await inner.close()
})

const nonsense: [string, (far: Duplex) => void][] = [
  ["a frame that is no MessagePack", (far) => far.write(Buffer.from([5, 0, 0, 0, 0xc1, 1, 2, 3, 4]))],
  ["a frame longer than any may be", (far) => far.write(Buffer.from([255, 255, 255, 255]))],
  ["a message of no known type", (far) => far.write(encodeFrame({ type: "gossip" }))],
  ["a message with a wrong field", (far) => far.write(encodeFrame({ type: "offered", id: "x", takes: 1 }))],
  [
    "columns that do not fit together",
    (far) => far.write(encodeFrame({ ...noDeltas(), ids: [1], choices: [0], lengths: [1] })),
  ],
  ["a frame that is no message", (far) => far.write(encodeFrame([1, 2]))],
]
test.each(nonsense)("%s: its replica is lost as broken, and its jobs can go elsewhere", async (_, talk) => {
  const { host, far, sink, inner } = await busy()
  talk(far)
  expect((await sink.over())[0]).toMatchObject({ kind: "lost", reason: "broken" })
  expect(host.state).toBe("down")
  await inner.close()
})

const strangers: [string, object][] = [
  ["another version", { ...hello(), version: WIRE_VERSION + 1 }],
  ["another protocol", { ...hello(), protocol: "http" }],
  ["no hello", { type: "state", state: "ready", detail: "" }],
]
test.each(strangers)("%s is refused with the reason", async (_, first) => {
  const [near, far] = duplexPair()
  const host = new WireHost(near, { name: "stranger" })
  far.resume()
  far.write(encodeFrame(first))
  await until(() => expect(host.state).toBe("down"))
  expect(host.detail).toMatch(/version 4|speaks http|no hello/)
})

test("a gateway of another version is refused as well", async () => {
  const [near, far] = duplexPair()
  const inner = inProcessHost()
  const ended = vi.fn()
  new WireServer(far, inner, { onEnd: ended })
  near.resume()
  near.write(encodeFrame({ ...hello(), version: 99 }))
  await until(() => expect(ended).toHaveBeenCalled())
  expect(ended.mock.calls[0]![0]).toContain("version 99")
  await inner.close()
})

test("two gateways share a replica: neither hears of the other's jobs, and only its own may close it", async () => {
  const inner = inProcessHost()
  const gateways = await Promise.all(
    ["a", "b"].map(async (name) => {
      const [near, far] = duplexPair()
      new WireServer(far, inner, { digestMs: 10 })
      const host = new WireHost(near, { name })
      await until(() => expect(host.state).toBe("ready"))
      return { host, far }
    }),
  )
  const job = jobOf({ maxTokens: 20 })
  const sinks = gateways.map(({ host }) => {
    const sink = new Kept()
    // The same id at both.
    host.submit(job, sink)
    return sink
  })
  for (const sink of sinks) {
    expect((await sink.over())[0]?.kind).toBe("finished")
    expect(sink.tokensOf[0]).toHaveLength(20)
  }
  gateways[0]!.far.destroy()
  const still = new Kept()
  gateways[1]!.host.submit(jobOf(), still)
  expect((await still.over())[0]?.kind).toBe("finished")
  await inner.close()
})

test("what is wanted of a prompt crosses it: an embedding, log-probabilities of its tokens", async () => {
  const { host, inner } = await wired()
  const told = async (sampling: Partial<Sampling>) => {
    const deltas: AnswerDelta[] = []
    const end = await new Promise<JobEnd>((resolve) => {
      const tokens: JobSink["tokens"] = (_choice, _tokens, delta) => void (delta && deltas.push(delta))
      const prompt = { kind: "tokens" as const, tokens: [72, 105, 33] }
      const job = jobOf({ prompt, maxTokens: 0, sampling: { ...GREEDY, ...sampling } })
      host.submit(job, { tokens, end: (_choice, ended) => resolve(ended) })
    })
    expect(end).toMatchObject({ kind: "finished", usage: { promptTokens: 3, completionTokens: 0 } })
    return deltas[0]!
  }
  const { embedding } = await told({ embedding: true })
  const floats = new Float32Array(Uint8Array.from(embedding!).buffer)
  expect(Math.hypot(...floats)).toBeCloseTo(1, 5)
  const { prompt, content } = await told({ promptLogprobs: 2 })
  expect(content).toBe("")
  expect(prompt!.map(({ bytes }) => Buffer.from(bytes).toString())).toEqual(["H", "i", "!"])
  expect(prompt!.map(({ top }) => top.length)).toEqual([0, 2, 2])
  await inner.close()
})
