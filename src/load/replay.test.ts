/** The generator end to end, against a small server of known timing and with every way to misbehave. */
import { once } from "node:events"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import { afterEach, describe, expect, test } from "vitest"
import { readClasses } from "./classes.ts"
import { probeModel } from "./client.ts"
import type { Plan, PlannedRequest } from "./plan.ts"
import { type ReplayOptions, type RoundRecord, replay } from "./replay.ts"
import { formatRecords, formatScore, summaryJson } from "./report.ts"
import { score } from "./score.ts"
import { SseParser } from "./sse.ts"
import { measureZeroLoad } from "./zero-load.ts"

interface Body {
  prompt: number[]
  max_tokens: number
  ignore_eos?: boolean
  slo?: Record<string, unknown>
}
type Behaviour = (
  body: Body,
  response: http.ServerResponse,
  request: http.IncomingMessage,
) => Promise<void> | void

const servers: http.Server[] = []
const WHOLE = { neverBegun: 0, interrupted: false }
/** Objectives that a busy test machine keeps, too. */
const LAX = readClasses("a=ttft:20000,tpot:10000", ["a"])
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})

async function serve(behaviour: Behaviour): Promise<{ url: string; bodies: Body[] }> {
  const bodies: Body[] = []
  const server = http.createServer(async (request, response) => {
    let text = ""
    for await (const part of request) text += part
    const body = JSON.parse(text) as Body
    bodies.push(body)
    await behaviour(body, response, request)
  })
  servers.push(server.listen(0, "127.0.0.1"))
  await once(server, "listening")
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bodies }
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)))
const event = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`
const token = (extra: object = {}) => event({ choices: [{ text: "x", finish_reason: null }], ...extra })
const start = (response: http.ServerResponse) =>
  response.writeHead(200, { "content-type": "text/event-stream" })

/** First token after `ttftMs`, then one every `tpotMs`; closing chunk, usage, [DONE]. */
function steady(ttftMs: number, tpotMs: number): Behaviour {
  return async (body, response) => {
    start(response)
    for (let n = 0; n < body.max_tokens; n++) {
      // From the last one on: on a busy machine a late token would else come close before the next.
      await sleep(n === 0 ? ttftMs : tpotMs)
      response.write(token())
    }
    response.write(event({ choices: [{ text: "", finish_reason: "length" }] }))
    response.write(event({ choices: [], usage: { completion_tokens: body.max_tokens } }))
    response.end("data: [DONE]\n\n")
  }
}

function planOf(requests: Partial<PlannedRequest>[]): Plan {
  const round = { class: "a", promptTokens: 5, outputTokens: 4, thinkingTokens: 0, delayMs: 0 }
  return {
    header: {
      plan: 1,
      scenario: "test",
      seed: 1,
      ratePerSec: 10,
      durationMs: 1000,
      scale: 1,
      arrivals: "poisson",
      burstiness: null,
      sources: {},
    },
    requests: requests.map((request, i) => ({
      atMs: i * 10,
      app: "a",
      session: null,
      rounds: [round],
      ...request,
    })),
  }
}

function run(url: string, plan: Plan, options: Partial<ReplayOptions> = {}) {
  return replay(plan, {
    target: { url, kind: "slos-serve", model: "m" },
    classes: LAX,
    tokenRange: { from: 32, to: 256 },
    nonce: "n",
    sendClass: true,
    timeoutMs: 30_000,
    ...options,
  })
}

/** A busy test machine may well make the generator late: that is not what these tests are about. */
const trusted = (problems: string[]) => problems.filter((problem) => !problem.startsWith("invalid"))

describe("replay", () => {
  test("times tokens from the scheduled send; counts and scores are right", async () => {
    const { url, bodies } = await serve(steady(50, 20))
    const plan = planOf(Array.from({ length: 20 }, () => ({})))
    const classes = readClasses("a=ttft:20000,tpot:10000,gap:15000", ["a"])
    const result = await run(url, plan, { classes })
    const scored = score(plan.header, result)
    expect(scored.requests).toEqual({ attained: 20, total: 20 })
    expect(trusted(scored.problems)).toEqual([])
    expect(scored.outputTokens).toBe(80)
    expect(scored.ttftMs!.p50).toBeGreaterThanOrEqual(49)
    expect(scored.tpotMs!.p50).toBeGreaterThan(17)
    expect(bodies.every((body) => body.prompt.length === 5 && body.ignore_eos === true)).toBe(true)
    expect(new Set(bodies.map((body) => body.prompt.join())).size).toBe(20)
    expect(scored.maxGapMs!.count).toBe(20)
    expect(scored.maxGapMs!.p50).toBeGreaterThanOrEqual(scored.tpotMs!.p50)
    expect(scored.apps.a!.maxGapMs).toEqual(scored.maxGapMs)
    expect(bodies[0]!.slo).toEqual({ ttft_ms: 20_000, tpot_ms: 10_000, max_gap_ms: 15_000, class: "a" })
    const summary = summaryJson(plan.header, scored, { url, kind: "slos-serve", model: "m" }, undefined)
    expect(summary).toMatchObject({
      completed: 20,
      failed: 0,
      total_input_tokens: 100,
      total_output_tokens: 80,
      median_max_gap_ms: scored.maxGapMs!.p50,
      p99_max_gap_ms: scored.maxGapMs!.p99,
    })
    expect(formatScore(plan.header, scored)).toContain("100.0%")
    const lines = formatRecords(result.records, { tokenTimes: true }).trim().split("\n")
    expect(lines).toHaveLength(20)
    const { maxGapMs, tokenTimesMs } = JSON.parse(lines[0]!) as { maxGapMs: number; tokenTimesMs: number[] }
    const gaps = tokenTimesMs.slice(1).map((time, i) => time - tokenTimesMs[i]!)
    expect(maxGapMs).toBeCloseTo(Math.max(...gaps), 1)
  })

  test("late first tokens and late later tokens miss, each in its own stage", async () => {
    const slow = await serve(steady(500, 5))
    const early = { classes: readClasses("a=ttft:400,tpot:10000", ["a"]) }
    const late = score(planOf([{}]).header, await run(slow.url, planOf([{}, {}]), early))
    expect(late.requests).toEqual({ attained: 0, total: 2 })
    expect(late.apps.a!.stages).toEqual({
      "a prefill": { attained: 0, total: 2 },
      "a answer": { attained: 2, total: 2 },
    })
    // A first token that comes early is slack to those after it: the fourth is late, after 3.3 s.
    const dragging = await serve(steady(10, 1100))
    const quick = { classes: readClasses("a=ttft:3000,tpot:20", ["a"]) }
    const scored = score(planOf([{}]).header, await run(dragging.url, planOf([{}]), quick))
    expect(scored.apps.a!.stages).toEqual({
      "a prefill": { attained: 1, total: 1 },
      "a answer": { attained: 0, total: 1 },
    })
  })

  test("thinking tokens are judged by their own TPOT, and the server is told how many there are", async () => {
    // The fifth is late, after 3.2 s.
    const { url, bodies } = await serve(steady(10, 800))
    const round = { class: "a", promptTokens: 5, outputTokens: 6, thinkingTokens: 5, delayMs: 0 }
    const classes = readClasses("a=ttft:3000,tpot:20000,thinking:20", ["a"])
    const { records } = await run(url, planOf([{ rounds: [round] }]), { classes })
    expect(records[0]!.stages.map((stage) => [stage.stage, stage.attained])).toEqual([
      ["prefill", true],
      ["thinking", false],
      ["answer", true],
    ])
    expect(bodies[0]!.slo).toMatchObject({ thinking_tokens: 5, thinking_tpot_ms: 20, tpot_ms: 20_000 })
  })

  test("rounds of a session follow each other with their delay and the whole history", async () => {
    const { url, bodies } = await serve(steady(10, 5))
    const round = { class: "a", promptTokens: 5, outputTokens: 4, thinkingTokens: 0, delayMs: 0 }
    const rounds = [round, { ...round, promptTokens: 3, delayMs: 60 }]
    const { records } = await run(url, planOf([{ session: "s", rounds }]))
    expect(records.map((record) => record.promptTokens)).toEqual([5, 5 + 4 + 3])
    expect(bodies[1]!.prompt.slice(0, 5)).toEqual(bodies[0]!.prompt)
    expect(bodies.map((body) => body.slo!.session)).toEqual(["n-s", "n-s"])
    expect(records[1]!.scheduledMs - records[0]!.endMs).toBeGreaterThanOrEqual(59)
    const scored = score(planOf([{}]).header, { records, elapsedMs: 1000, sendLagsMs: [], ...WHOLE })
    expect(scored.requests).toEqual({ attained: 1, total: 1 })
  })

  test.each<[string, Behaviour, RoundRecord["end"]]>([
    [
      "429",
      (_, response) => {
        response
          .writeHead(429, { "retry-after": "1" })
          .end(JSON.stringify({ error: { message: "queue full" } }))
      },
      "rejected",
    ],
    [
      "500 without JSON",
      (_, response) => {
        response.writeHead(500).end("<html>")
      },
      "error",
    ],
    [
      "connection closed before the answer",
      (_, response) => {
        response.destroy()
      },
      "disconnected",
    ],
    [
      "broken off in mid-stream",
      async (_, response) => {
        start(response).write(token())
        await sleep(20)
        response.destroy()
      },
      "disconnected",
    ],
    [
      "ends politely without finish_reason",
      (_, response) => {
        start(response).write(token())
        response.end()
      },
      "disconnected",
    ],
    [
      "an error inside the stream",
      (_, response) => {
        start(response).write(token())
        response.end(event({ error: { message: "kv full" } }))
      },
      "error",
    ],
    [
      "not JSON",
      (_, response) => {
        start(response).end("data: {\n\n")
      },
      "error",
    ],
    ["never answers", () => {}, "timeout"],
    [
      "fewer tokens than forced",
      (body, response) => {
        steady(1, 1)({ ...body, max_tokens: 2 }, response, {} as http.IncomingMessage)
      },
      "ok",
    ],
  ])("%s: counted as missed, the rest go on", async (_, misbehave, end) => {
    const { url } = await serve((body, response, request) =>
      body.prompt.length === 7 ? misbehave(body, response, request) : steady(10, 5)(body, response, request),
    )
    const bad = { class: "a", promptTokens: 7, outputTokens: 4, thinkingTokens: 0, delayMs: 0 }
    const plan = planOf([{}, { rounds: [bad, { ...bad, promptTokens: 1 }], session: "s" }, {}])
    const result = await run(url, plan, { timeoutMs: 5000 })
    const scored = score(plan.header, result)
    expect(scored.requests).toEqual({ attained: 2, total: 3 })
    const rounds = result.records.filter((record) => record.request === 1)
    expect(rounds.map((record) => record.end)).toEqual([end, end === "ok" ? "ok" : "notSent"])
    expect(trusted(scored.problems)).toHaveLength(end === "ok" ? 1 : 0)
  })

  test("several tokens a chunk: cumulative counts are believed, hidden ones are reported", async () => {
    const { url } = await serve(async (body, response) => {
      start(response)
      response.write(token({ usage: { completion_tokens: 2 } }))
      await sleep(10)
      if (body.prompt.length === 5) response.write(token({ timings: { predicted_n: 4 } }))
      response.write(
        event({ choices: [{ text: "", finish_reason: "length" }], usage: { completion_tokens: 4 } }),
      )
      response.end("data: [DONE]\n\n")
    })
    const hidden = { class: "a", promptTokens: 6, outputTokens: 4, thinkingTokens: 0, delayMs: 0 }
    const plan = planOf([{}, { rounds: [hidden] }])
    const result = await run(url, plan)
    expect(result.records.map((record) => record.tokenTimesMs.length)).toEqual([4, 4])
    expect(result.records.map((record) => record.untimedTokens)).toEqual([0, 1])
    expect(score(plan.header, result).problems.join()).toContain(
      "1 tokens were known only from the closing usage",
    )
  })

  test("waiting for --max-concurrency counts as latency, not as the generator's lag", async () => {
    const { url } = await serve(steady(600, 1))
    const plan = planOf([{ atMs: 0 }, { atMs: 0 }, { atMs: 0 }])
    const result = await run(url, plan, { maxConcurrency: 1 })
    const ttfts = result.records.map((record) => record.tokenTimesMs[0]!).sort((a, b) => a - b)
    expect(ttfts[2]!).toBeGreaterThan(1750)
    // The last one waited for two, and then for its own: what of it is not lag is at least that long.
    expect(ttfts[2]! - Math.max(...result.sendLagsMs)).toBeGreaterThan(1000)
  })

  test("a generator that could not keep its schedule says that the figures are invalid", async () => {
    let asked = 0
    const { url } = await serve((body, response, request) => {
      // The generator stands still with it, wherever it is in its plan: some of that is due meanwhile.
      if (++asked === 2) for (const end = performance.now() + 400; performance.now() < end; );
      return steady(1, 1)(body, response, request)
    })
    const result = await run(url, planOf(Array.from({ length: 60 }, () => ({}))))
    expect(score(planOf([]).header, result).problems.join()).toContain("invalid")
    expect(Math.max(...result.sendLagsMs)).toBeGreaterThan(150)
    expect(Math.max(...result.records.map(({ tokenTimesMs }) => tokenTimesMs[0]!))).toBeGreaterThan(150)
  })

  test("once everything left has missed, stopWhenDecided ends the run", async () => {
    const { url } = await serve(steady(10, 10_000))
    const plan = planOf([{}])
    plan.header.durationMs = 10
    const classes = readClasses("a=ttft:3000,tpot:200", ["a"])
    const result = await run(url, plan, { classes, stopWhenDecided: true, timeoutMs: 60_000 })
    expect(result.records[0]!.end).toBe("abandoned")
    // Its other tokens take half a minute.
    expect(result.elapsedMs).toBeLessThan(30_000)
    expect(result.records[0]!.stages[0]).toMatchObject({ stage: "prefill", attained: true })
  })

  test("an interrupted replay says so: what was never sent is in no figure", async () => {
    const interrupt = new AbortController()
    const { url } = await serve(async (body, response, request) => {
      await steady(10, 1)(body, response, request)
      interrupt.abort()
    })
    const plan = planOf([{}, { atMs: 60_000 }, { atMs: 60_001 }])
    const result = await run(url, plan, { signal: interrupt.signal })
    expect(result.records).toHaveLength(1)
    expect(score(plan.header, result).problems.join()).toContain(
      "invalid: interrupted, 2 requests of the plan",
    )
    expect(result.elapsedMs).toBeLessThan(50_000)
  })

  test("one interrupted after its last arrival is no result either", async () => {
    const interrupt = new AbortController()
    const { url } = await serve(() => interrupt.abort())
    const plan = planOf([{}])
    const result = await run(url, plan, { signal: interrupt.signal })
    expect(result.neverBegun).toBe(0)
    expect(score(plan.header, result).problems.join()).toContain("invalid: interrupted")
  })

  test("no server there: one clear error before anything is sent", async () => {
    await expect(probeModel("http://127.0.0.1:9", undefined)).rejects.toThrow(
      "cannot reach http://127.0.0.1:9",
    )
  })
})

test("SSE events are found however the bytes are cut", () => {
  const bytes = new TextEncoder().encode(
    'data: {"a":"é"}\r\n\r\n: comment\n\ndata: 1\ndata: 2\n\nerror: {"b":1}\n\n',
  )
  for (let size = 1; size <= bytes.length; size++) {
    const parser = new SseParser()
    const events: string[] = []
    for (let at = 0; at < bytes.length; at += size) events.push(...parser.push(bytes.slice(at, at + size)))
    expect(events).toEqual(['{"a":"é"}', "1\n2", '{"b":1}'])
  }
})

test("an idle server's prefill time is found from outside: never less than it is, and with prompts of one's own", async () => {
  const { url, bodies } = await serve((body, response, request) =>
    steady(30 + body.prompt.length, 1)(body, response, request),
  )
  const target = { url, kind: "slos-serve", model: "m" } as const
  const { ms, msPerToken } = await measureZeroLoad(target, 116, 3, { from: 7, to: 9 })
  expect(msPerToken).toBeGreaterThan(0)
  expect(ms + msPerToken * 116).toBeGreaterThan(140)
  expect(new Set(bodies.flatMap(({ prompt }) => prompt))).toEqual(new Set([7, 8]))
  expect(new Set(bodies.map(({ prompt }) => prompt.length))).toEqual(new Set([16, 116]))
  const refused = await serve((_, response) => void response.writeHead(500).end("{}"))
  await expect(measureZeroLoad({ ...target, url: refused.url }, 116, 3)).rejects.toThrow(/idle server failed/)
})
