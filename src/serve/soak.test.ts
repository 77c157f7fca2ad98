/** Nothing is kept of requests that have ended, but what the KV cache may hold: live memory after thousands of
 * them is what it was before. */
import { expect, it } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import type { EngineLimits } from "../core/protocol.ts"
import { fakeEngine } from "../engine/fake/engine.ts"
import { GREEDY } from "../engine/port.ts"
import { Random } from "../random.ts"
import { ReplicaDriver } from "../replica/driver.ts"
import { keptBytes, liveBytes, VirtualClock } from "../replica/testing.ts"
import type { AnswerEnd } from "../text/answer.ts"
import type { GenerationRequest } from "./intake.ts"
import { LocalFront } from "./local-front.ts"
import { Service } from "./service.ts"
import { resolveSlo } from "./slo-resolve.ts"
import { MOST_NAMED } from "./tenants.ts"

/** Small, so that the cache is full at once and running requests lose their KV now and then. */
const limits: EngineLimits = {
  kvTokens: 512,
  blockTokens: 16,
  maxSequences: 12,
  maxBatchTokens: 256,
  contextTokens: 256,
  minChunkTokens: 1,
  unifiedKv: true,
}
const cost = {
  pieces: [{ step: 5000, tokens: 100 }],
  residualSigma: 0.05,
  fastPassTokens: 1,
  unifiedKv: true,
}
const CLIENTS = 32
const SESSIONS = 64
/** Requests between two measurements. */
const BLOCK = 4000
/** Of an ended request. Its id alone in a Set or as a Map's key would take 20 or more. */
const MOST_KEPT_BYTES = 12
const classes = defaultSloClasses()

function service(clock: VirtualClock): Service {
  const outputTokens = (id: number) => 1 + (id % 6)
  const failures = (batch: number) => (batch % 500 === 0 ? "engineError" : null)
  const engine = fakeEngine({ cost, limits, time: clock, outputTokens, failures, speculate: "lookup" })
  const options = { speculation: "on" as const, maxSpeculation: 4 }
  const policy = "slos-serve"
  const driver = new ReplicaDriver({
    ...{ engine, clock },
    config: { limits, cost, policy, apps: classes.all.length, options },
  })
  return new Service({ front: new LocalFront(engine, driver), classes, policy })
}

/** Some with a session, some with another's first block of tokens, some best-effort, some sure to miss. */
function requestOf(random: Random, signal: AbortSignal): GenerationRequest {
  const shared = random.below(4) === 0 ? 32 : 0
  const tokens = Array.from({ length: 20 + random.below(60) }, (_, i) => (i < shared ? i : random.below(256)))
  // Sessions are their tenants': with any tenant there would be as many more.
  const session = random.below(3) === 0 ? random.below(SESSIONS) : null
  const slo = { ttft_ms: 20 * (1 + random.below(40)), tpot_ms: 20 }
  return {
    prompt: { kind: "tokens", tokens },
    tenant: `t${session ?? random.below(3 * MOST_NAMED)}`,
    maxTokens: 6,
    sampling: GREEDY,
    parseSpecial: null,
    stops: [],
    singleCall: false,
    slo: resolveSlo(classes, {
      headers: {},
      modelClass: null,
      ...(random.below(5) === 0 ? { serviceTier: "flex" } : { slo }),
    }),
    session: session === null ? null : `session ${session}`,
    reasoning: null,
    thinkingTokens: null,
    arrivalMs: performance.now(),
    signal,
  }
}

/** `CLIENTS` clients send `requests` requests, each its next when its last has ended; some ask for two answers,
 * some go away. Adds how they ended to `ends`. */
async function serveAll(
  to: Service,
  clock: VirtualClock,
  random: Random,
  requests: number,
  ends: Map<string, number>,
): Promise<void> {
  let left = requests
  const send = async (): Promise<void> => {
    if (left-- <= 0) return
    const abort = new AbortController()
    if (random.below(10) === 0) clock.wakeAt(clock.nowUs() + random.below(200_000), () => abort.abort("gone"))
    let open = random.below(8) === 0 ? 2 : 1
    const end = ({ kind }: AnswerEnd) => {
      ends.set(kind, (ends.get(kind) ?? 0) + 1)
      if (--open === 0) void send()
    }
    const sinks = Array.from({ length: open }, () => ({ delta: () => {}, end }))
    await to.front.start([requestOf(random, abort.signal)], sinks)
  }
  for (let i = 0; i < CLIENTS; i++) void send()
  await clock.run()
}

it("keeps nothing of ended requests", { timeout: 120_000, retry: 1 }, async () => {
  const clock = new VirtualClock()
  const server = service(clock)
  const random = new Random("soak")
  const ends = new Map<string, number>()
  const bytes: number[] = []
  for (let block = 0; block < 7; block++) {
    await serveAll(server, clock, random, BLOCK, ends)
    const { driver } = server.front as LocalFront
    driver.replica.check()
    bytes.push(liveBytes())
  }
  expect(ends.get("finished")).toBeGreaterThan(6 * BLOCK)
  expect(ends.get("cancelled")).toBeGreaterThan(BLOCK / 10)
  expect(keptBytes(bytes, BLOCK), `live bytes after each block: ${bytes}`).toBeLessThan(MOST_KEPT_BYTES)
  await server.close()
})
