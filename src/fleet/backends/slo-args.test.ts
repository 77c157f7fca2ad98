/** A vLLM is told each request's SLO among its extra arguments; other engines are told nothing of it. */
import { Agent } from "undici"
import { afterEach, describe, expect, test } from "vitest"
import type { Job } from "../../replica/host.ts"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { BACKEND_KINDS, type OwnBatchingKind } from "./kinds.ts"
import { RemoteHost } from "./remote-host.ts"
import { FakeBackend } from "./testing.ts"

const HI = { messages: [{ role: "user", content: "hi" }] }
const opened: { close(): Promise<unknown> }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

async function open(kind: OwnBatchingKind = "vllm") {
  const backend = await FakeBackend.open({ kind })
  const dispatcher = new Agent()
  const host = new RemoteHost({
    ...{ name: "far", url: backend.url, kind: BACKEND_KINDS[kind], apps: 20, dispatcher, probeMs: 20 },
    timeouts: { connectMs: 1000, firstByteMs: 5000, silenceMs: 5000 },
  })
  opened.push(backend, dispatcher, host)
  await until(() => expect(host.state).toBe("ready"))
  return { backend, host }
}

/** Of each of its requests to the engine. */
async function argsOf({ backend, host }: Awaited<ReturnType<typeof open>>, job: Job) {
  const sink = new Kept(job.choices.length)
  host.submit(job, sink)
  expect((await sink.over()).every((end) => end?.kind === "finished")).toBe(true)
  return backend.asked.splice(0).map(({ body }) => body.vllm_xargs as Record<string, number> | undefined)
}

describe("a vLLM", () => {
  test("is told the class, the objectives, whose it is, and when it came, for each choice", async () => {
    const sentMs = Date.now()
    const job = jobOf({ tenant: "alice", session: "s-1" }, 2, { max_gap_ms: 800 })
    const all = await argsOf(await open(), { ...job, ageUs: 3_000_000 })
    expect(all).toHaveLength(2)
    for (const args of all) {
      const { slo_arrived_unix_ms: arrived, ...rest } = args!
      expect(rest).toEqual({
        ...{ slo_class: "chat", slo_tier: "slo", slo_ttft_ms: 5000, slo_tpot_ms: 1000, slo_max_gap_ms: 800 },
        ...{ slo_tenant: "alice", slo_session: "s-1" },
      })
      // It came three seconds before it was sent, and was sent before now.
      expect(arrived!).toBeGreaterThanOrEqual(sentMs - 3001)
      expect(arrived!).toBeLessThanOrEqual(Date.now() - 2999)
      expect(Number.isInteger(arrived)).toBe(true)
    }
  })

  test("has the client's other arguments, and the gateway's word where the client named an SLO", async () => {
    const body = { ...HI, vllm_xargs: { mine: ["a", 1], slo_tpot_ms: 3, slo_tenant: "bob" } }
    const [args] = await argsOf(await open(), { ...jobOf(), body })
    expect(args).toMatchObject({ mine: ["a", 1], slo_tpot_ms: 1000 })
    expect(args).not.toHaveProperty("slo_tenant")
  })

  test("best effort is said to be that, also of a request that its twin has turned down", async () => {
    const idle = jobOf()
    const slo = { ...idle.generation.slo, tier: "bestEffort" as const }
    const far = await open()
    const [args] = await argsOf(far, { ...idle, generation: { ...idle.generation, slo } })
    expect(args).toMatchObject({ slo_class: "chat", slo_tier: "best_effort" })
    expect(args).not.toHaveProperty("slo_ttft_ms")
  })

  test("what goes on elsewhere owes its next token at the pace of those before", async () => {
    const job = jobOf({}, 1, { ttft_ms: undefined, ttft_slowdown: 5, tpot_ms: 2000 })
    const begun = {
      steps: [{ tokens: [100, 101], agoUs: 1_000_000 }],
      start: { ttftUs: 4_000_000, queuedUs: 0, cachedTokens: 0 },
      text: { content: "one two", reasoning: "", toolCalls: 0 },
    }
    const choices = [{ index: 0, begun }]
    const [args] = await argsOf(await open(), { ...job, ageUs: 6_000_000, choices })
    expect(args).not.toHaveProperty("slo_ttft_slowdown")
    // First token after 5 s, where 4 s were asked for; two of 2 s each after that.
    expect(args!.slo_ttft_ms).toBeCloseTo(9000, -1)
    expect(args!.slo_tpot_ms).toBe(2000)
  })
})

test.each(["sglang", "llama-server", "openai"] as const)("%s is told none", async (kind) => {
  const far = await open(kind)
  expect(await argsOf(far, jobOf())).toEqual([undefined])
  const body = { ...HI, vllm_xargs: { mine: 1, slo_tpot_ms: 3 } }
  expect(await argsOf(far, { ...jobOf(), body })).toEqual([{ mine: 1 }])
})
