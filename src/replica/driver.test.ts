/** What the driver owes the engine when things go wrong: whatever the core lets go of, the engine hears. */
import { expect, it } from "vitest"
import type { RequestId } from "../core/protocol.ts"
import { fakeEngine } from "../engine/fake/engine.ts"
import { type Engine, GREEDY } from "../engine/port.ts"
import { ReplicaDriver, type Submission } from "./driver.ts"
import { VirtualClock } from "./testing.ts"

const limits = {
  kvTokens: 1024,
  blockTokens: 16,
  maxSequences: 4,
  maxBatchTokens: 64,
  contextTokens: 256,
  minChunkTokens: 1,
  unifiedKv: false,
}
const cost = { pieces: [{ step: 1000 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: false }
/** The first token of prompts that the engine refuses. */
const REFUSED = 99

/** An engine that cannot open some requests, and the ids that it holds. */
function pickyEngine(clock: VirtualClock): { engine: Engine; open: Set<RequestId> } {
  const inner = fakeEngine({ cost, limits, time: clock, outputTokens: 4 })
  const open = new Set<RequestId>()
  const engine: Engine = {
    model: inner.model,
    limits: inner.limits,
    tokenizer: inner.tokenizer,
    open(id, prompt, sampling) {
      if (prompt[0] === REFUSED) throw new Error("no such grammar")
      inner.open(id, prompt, sampling)
      open.add(id)
    },
    async execute(batch) {
      const output = await inner.execute(batch)
      for (const id of batch.release) open.delete(id)
      return output
    },
    close: () => inner.close(),
  }
  return { engine, open }
}

function submissionOf(first: number, onEnd: (reason: string) => void): Submission {
  return {
    ...{
      app: 0,
      session: -1,
      prefix: [],
      maxOutputTokens: 8,
      sampling: GREEDY,
      tier: "slo",
      thinking: false,
    },
    slo: { ttftUs: 1e6, ttftSlowdown: 0, tpotUs: 1e5, thinkingTpotUs: 1e5, maxGapUs: Infinity },
    prompt: Int32Array.of(first, 1, 2, 3),
    onTokens: (row) => ({ stopped: row.end, answeringFrom: -1 }),
    onEnd: ({ reason }) => onEnd(reason),
  }
}

it("a request that the engine refuses to open fails alone, and nothing of the others stays behind", async () => {
  const clock = new VirtualClock()
  const { engine, open } = pickyEngine(clock)
  const failures: string[] = []
  const driver = new ReplicaDriver({
    ...{ engine, clock, log: (message: string) => failures.push(message) },
    config: { limits, cost, policy: "slos-serve", apps: 1 },
  })
  const ends = new Map<number, string>()
  const submission = (place: number, first: number) =>
    submissionOf(first, (reason) => ends.set(place, reason))
  // Staggered, so that some end, and are to be released, in the batch that others cannot be opened for.
  for (let place = 0; place < 24; place++) {
    clock.wakeAt(place * 700, () => void driver.submit(submission(place, place % 3 === 2 ? REFUSED : place)))
  }
  await clock.run()
  for (let place = 0; place < 24; place++) expect(ends.get(place)).toBe(place % 3 === 2 ? "failed" : "stop")
  expect([...new Set(failures.map((line) => line.replace(/^step \d+/, "step")))]).toEqual([
    "step failed (engineError: no such grammar)",
  ])
  // The last ones' release waits for a next batch.
  expect(open.size).toBeLessThanOrEqual(limits.maxSequences)
})

it("further choices of an accepted request find room in a queue that has filled meanwhile", async () => {
  const clock = new VirtualClock()
  const driver = new ReplicaDriver({
    ...{ engine: fakeEngine({ cost, limits, time: clock, outputTokens: 4 }), clock },
    config: { limits, cost, policy: "slos-serve", apps: 1, maxQueue: 2 },
  })
  const ends: string[] = []
  const submit = (name: string, after?: RequestId) => {
    const submission = submissionOf(1, (reason) => ends.push(`${name} ${reason}`))
    return driver.submit(after === undefined ? submission : { ...submission, after })
  }
  const first = submit("choice")
  for (let i = 0; i < 3; i++) submit("choice", first)
  submit("another")
  const late = submit("refused")
  submit("choice of the refused", late)
  await clock.run()
  expect(ends.toSorted()).toEqual([
    "another stop",
    "choice of the refused queueFull",
    ...Array(4).fill("choice stop"),
    "refused queueFull",
  ])
})
