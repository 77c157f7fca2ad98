/** Answers of every kind, cut after each of their steps: what another replica adds to them is what was missing. */
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import type { SeenStart } from "../core/seen.ts"
import { fakeEngine } from "../engine/fake/engine.ts"
import { GREEDY } from "../engine/port.ts"
import type { Generation, Prompt } from "../replica/generation.ts"
import type { Begun, Job, JobEnd, JobSink, ReplicaHost } from "../replica/host.ts"
import type { AnswerDelta } from "../text/answer.ts"
import { generation } from "./host.suite.ts"
import { HOST_LIMITS, inProcessHost } from "./host-testing.ts"

/** What the model says, by a word of its prompt. */
const SAYS: Record<string, string> = {
  plain: "Grüße, 日本 🙂🙂 and so on.",
  thinks: "<think>\nOne, two;\nthree.\n</think>\n\nFour 🙂!",
  calls:
    'Let me see.<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call> \n<tool_call>\n{"name":"go"}\n</tool_call>',
  nearly: "<tool_ca <tool_call>no call</tool_call> <thi",
  stops: "a sto stop here, and STO",
}
const engine = () =>
  fakeEngine({
    limits: HOST_LIMITS,
    cost: { pieces: [{ step: 300, tokens: 1 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true },
    time: "real",
    outputTokens: 30,
    script: (_, prompt) => Object.entries(SAYS).find(([word]) => prompt.includes(word))?.[1],
  })

interface Step {
  tokens: readonly number[]
  delta: AnswerDelta | null
}

class Choices implements JobSink {
  readonly steps: Step[][] = []
  readonly ends: JobEnd[] = []
  readonly starts: SeenStart[] = []
  readonly over: Promise<void>
  #resolve!: () => void
  #left: number

  constructor(left: number) {
    this.#left = left
    this.over = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }
  started(choice: number, start: SeenStart): void {
    this.starts[choice] = start
  }
  tokens(choice: number, tokens: readonly number[], delta: AnswerDelta | null): void {
    this.steps[choice] = [...(this.steps[choice] ?? []), { tokens, delta }]
  }
  end(choice: number, end: JobEnd): void {
    this.ends[choice] = end
    if (--this.#left === 0) this.#resolve()
  }
}

/** What a client makes of steps. */
function seenOf(steps: readonly Step[]) {
  const deltas = steps.flatMap(({ delta }) => delta ?? [])
  return {
    tokens: steps.flatMap(({ tokens }) => tokens),
    content: deltas.map(({ content }) => content).join(""),
    reasoning: deltas.map(({ reasoning }) => reasoning).join(""),
    calls: deltas.flatMap(({ toolCalls }) => toolCalls),
    logprobs: deltas.flatMap(({ logprobs }) => logprobs),
    completionTokens: deltas.at(-1)?.completionTokens,
  }
}

/** All of an end but what depends on the time. */
function endOf(end: JobEnd | undefined) {
  if (end?.kind !== "finished") throw new Error(`not finished: ${JSON.stringify(end)}`)
  const { reason, usage, outcome } = end
  const { promptTokens, outputTokens, cachedTokens, attained, stages } = outcome
  return {
    ...{ reason, usage, promptTokens, outputTokens, cachedTokens, attained },
    stages: stages.map(({ stage, tokens }) => ({ stage, tokens })),
  }
}

const chat = (content: string, tools = false): Prompt => ({
  ...{ kind: "chat", messages: [{ role: "user", content }], variables: {} },
  tools: tools ? [{ type: "function", function: { name: "look" } }] : null,
})
const slo = { ttft_ms: 60_000, tpot_ms: 60_000 }
const thinking = { ...slo, thinking_tpot_ms: 30_000 }
const kinds: [string, Partial<Generation>, object][] = [
  ["plain text, to its end", { prompt: chat("plain") }, slo],
  ["plain text, to its limit", { prompt: chat("plain"), maxTokens: 17 }, slo],
  ["a completion", { prompt: { kind: "text", text: "plain" } }, slo],
  ["thoughts and an answer", { prompt: chat("thinks"), reasoning: true }, thinking],
  ["thoughts that are cut", { prompt: chat("thinks"), reasoning: true, maxTokens: 12 }, thinking],
  ["thoughts by number", { prompt: chat("other"), thinkingTokens: 9 }, thinking],
  ["tool calls", { prompt: chat("calls", true) }, slo],
  ["the first tool call alone", { prompt: chat("calls", true), singleCall: true }, slo],
  ["what is nearly a tool call", { prompt: chat("nearly", true) }, slo],
  ["a stop string", { prompt: chat("stops"), stops: ["stop"] }, slo],
  [
    "a stop string, after some tokens",
    { prompt: chat("stops"), stops: ["sto", "STOP"], sampling: { ...GREEDY, minTokens: 5 } },
    slo,
  ],
  ["log-probabilities", { prompt: chat("stops"), sampling: { ...GREEDY, logprobs: 3 } }, slo],
  [
    "a grammar",
    {
      prompt: chat("plain"),
      sampling: { ...GREEDY, grammar: `root ::= "[" [0-9] [0-9a-z ]+ "-0123456789" "]"` },
    },
    slo,
  ],
]

describe("an answer that goes on on another replica", () => {
  let first: ReplicaHost
  let second: ReplicaHost
  let ids = 0
  beforeAll(() => {
    first = inProcessHost({ engine: engine(), name: "first" })
    second = inProcessHost({ engine: engine(), name: "second" })
  })
  afterAll(() => Promise.all([first.close(), second.close()]))

  const jobOf = (of: Generation, choices: Job["choices"]): Job => ({
    ...{ id: ++ids, generation: of, ageUs: 900_000, choices },
  })
  async function run(host: ReplicaHost, job: Job): Promise<Choices> {
    const sink = new Choices(job.choices.length)
    host.submit(job, sink)
    await sink.over
    return sink
  }
  /** The tokens as a gateway keeps them, in groups of `size` steps. */
  function begun(steps: readonly Step[], start: SeenStart, size = 1): Begun {
    const tokens = steps.map((step) => step.tokens).filter(({ length }) => length > 0)
    const groups = Array.from({ length: Math.ceil(tokens.length / size) }, (_, i) =>
      tokens.slice(i * size, (i + 1) * size).flat(),
    )
    const agoUs = (i: number) => 1000 * (groups.length - i)
    return { steps: groups.map((group, i) => ({ tokens: group, agoUs: agoUs(i) })), start }
  }

  test.each(kinds)("%s: cut after each step", async (_, changes, objectives) => {
    const of = {
      ...generation({ maxTokens: 60, ...changes }, objectives),
      sampling: { ...GREEDY, ...changes.sampling },
    }
    const whole = await run(first, jobOf(of, [{ index: 0, begun: null }]))
    const steps = whole.steps[0]!
    const withTokens = steps.filter(({ tokens }) => tokens.length > 0).length
    expect(withTokens).toBeGreaterThan(8)
    const end = endOf(whole.ends[0])
    const cutAt = async (cut: number) => {
      const before = steps.slice(0, cut)
      const choice = { index: 0, begun: begun(before, whole.starts[0]!, 1 + (cut % 3)) }
      const rest = await run(second, jobOf(of, [choice]))
      expect([cut, seenOf([...before, ...(rest.steps[0] ?? [])])]).toEqual([cut, seenOf(steps)])
      expect([cut, endOf(rest.ends[0])]).toEqual([cut, end])
    }
    await Promise.all(Array.from({ length: withTokens }, (_, i) => cutAt(i + 1)))
  })

  test("several choices, each cut elsewhere, some ended already", async () => {
    const sampling = { ...GREEDY, temperature: 1, seed: 40 }
    const long = "word ".repeat(20)
    const of = { ...generation({ prompt: chat(long), maxTokens: 25 }, slo), sampling }
    const whole = await run(
      first,
      jobOf(
        of,
        [0, 1, 2, 3].map((index) => ({ index, begun: null })),
      ),
    )
    expect(new Set(whole.steps.map((steps) => seenOf(steps).content)).size).toBe(4)
    // The second has ended and was told so; the third has its last token and was not.
    const cuts = [7, 25, 25, 0]
    const going = [0, 2, 3]
    const choices = going.map((index) => {
      const cut = cuts[index]!
      return {
        index,
        begun: cut === 0 ? null : begun(whole.steps[index]!.slice(0, cut), whole.starts[index]!),
      }
    })
    const rest = await run(second, jobOf(of, choices))
    expect(Object.keys(rest.ends).map(Number)).toEqual(going)
    for (const index of going) {
      const before = whole.steps[index]!.slice(0, cuts[index]!)
      const seen = seenOf([...before, ...(rest.steps[index] ?? [])])
      expect(seen).toEqual(seenOf(whole.steps[index]!))
      expect(endOf(rest.ends[index])).toMatchObject({ reason: "length", outputTokens: 25 })
    }
  })

  test("may be cut again, and again", async () => {
    const of = generation({ prompt: chat("thinks"), reasoning: true, maxTokens: 60 }, thinking)
    const free = { ...of, sampling: GREEDY }
    const whole = await run(first, jobOf(free, [{ index: 0, begun: null }]))
    let steps: Step[] = []
    for (const host of [second, first, second, first]) {
      const rest = await run(host, jobOf(free, [{ index: 0, begun: begun(steps, whole.starts[0]!) }]))
      steps = [...steps, ...rest.steps[0]!.slice(0, 5)]
    }
    const last = await run(second, jobOf(free, [{ index: 0, begun: begun(steps, whole.starts[0]!) }]))
    expect(seenOf([...steps, ...last.steps[0]!])).toEqual(seenOf(whole.steps[0]!))
    expect(endOf(last.ends[0])).toEqual(endOf(whole.ends[0]))
  })
})
