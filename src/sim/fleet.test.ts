/** Fleets: paired luck, faults that lose nothing, prefill and decode apart, stale routing. */
import { describe, expect, test } from "vitest"
import type { Outcome } from "../core/protocol.ts"
import type { ReplicaConfig } from "../core/replica.ts"
import { COST, LIMITS, specOf } from "../core/testing.ts"
import { ROUTER_KINDS } from "../router/routers.ts"
import { Faults } from "./faults.ts"
import { type FleetOptions, type FleetResult, simulateFleet } from "./fleet.ts"
import { Machine } from "./machine.ts"
import { Transfers } from "./transfers.ts"
import { type SimRequest, World } from "./world.ts"

const config: ReplicaConfig = { limits: LIMITS, cost: COST, policy: "slos-serve", apps: 1 }

const requests = (count: number, gapUs = 20_000): SimRequest[] =>
  Array.from({ length: count }, (_, i) => ({
    atUs: i * gapUs,
    outputTokens: 10 + (i % 20),
    spec: specOf(i, { promptTokens: 50 + ((i * 37) % 200) }),
  }))

interface Played extends FleetResult {
  log: string[]
  ends: Map<number, Outcome>
}

function play(changes: Partial<FleetOptions> = {}): Played {
  const log: string[] = []
  const ends = new Map<number, Outcome>()
  const result = simulateFleet({
    replicas: [config, config, config],
    requests: requests(60),
    seed: 1,
    check: true,
    maxPolls: 100_000,
    onEffect: (effect, nowUs, replica) => {
      log.push(`${nowUs} ${replica} ${JSON.stringify(effect)}`)
      if (effect.type !== "finished") return
      expect(ends.has(effect.id)).toBe(false)
      ends.set(effect.id, effect.outcome)
    },
    ...changes,
  })
  return { ...result, log, ends }
}

/** Every request got every token exactly once. */
function expectWhole({ ends }: Played, of = requests(60)): void {
  for (const { spec, outputTokens } of of) expect(ends.get(spec.id)?.outputTokens).toBe(outputTokens)
}

test("the same seed gives the same effects, another one others", () => {
  const noisy = { noiseSigma: 0.1, router: { kind: "power-of-two" as const } }
  expect(play(noisy).log).toEqual(play(noisy).log)
  expect(play({ ...noisy, seed: 2 }).log).not.toEqual(play(noisy).log)
})

test("noise depends on the seed, the replica and its step alone: policies are paired", () => {
  const end = (policy: ReplicaConfig["policy"], seed = 1) =>
    play({ replicas: [{ ...config, policy }], requests: requests(1), noiseSigma: 0.1, seed }).endUs
  expect(end("vllm")).toBe(end("edf"))
  expect(end("vllm", 2)).not.toBe(end("vllm"))
})

test("bias slows every step, and the truth may differ from what is believed", () => {
  const single = { replicas: [config], requests: requests(1) }
  const { endUs } = play(single)
  expect(play({ ...single, bias: 2 }).endUs).toBeGreaterThan(1.9 * endUs)
  const truth = { ...COST, pieces: [{ step: 10_000, tokens: 200 }] }
  expect(play({ ...single, truth }).endUs).toBe(play({ ...single, bias: 2 }).endUs)
})

test.each(ROUTER_KINDS)("%s: more replicas finish sooner and share the work", (kind) => {
  const burst = requests(60, 0)
  const one = play({ replicas: [config], requests: burst, router: { kind } })
  const three = play({ requests: burst, router: { kind } })
  expectWhole(three, burst)
  expect(three.endUs).toBeLessThan(one.endUs / 2)
  for (const routed of three.routed) expect(routed).toBeGreaterThan(8)
})

describe("faults", () => {
  test.each(["vllm", "slos-serve"] as const)("%s: a lost replica loses no request and no token", (policy) => {
    const replicas = [1, 2, 3].map(() => ({ ...config, policy }))
    const faults = [{ kind: "lostReplica" as const, replica: 1, atUs: 300_123 }]
    const played = play({ replicas, faults })
    expectWhole(played)
    expect(played.moved).toBeGreaterThan(0)
    const moved = [...played.ends.values()].filter(({ preemptions }) => preemptions > 0)
    expect(moved.length).toBeGreaterThan(0)
    const after = played.log.filter(
      (line) => Number(line.split(" ")[0]) > 300_123 && line.split(" ")[1] === "1",
    )
    expect(after).toEqual([])
  })

  test("failed steps are tried again", () => {
    const fault = { kind: "failedStep" as const, replica: 0, atUs: 100_000 }
    const faults = [
      { ...fault, reason: "kvFull" as const },
      { ...fault, atUs: 400_000, reason: "engineError" as const },
    ]
    const played = play({ faults })
    expectWhole(played)
    // After an engine error the replica pauses.
    expect(played.log.filter((line) => line.includes('"wake"')).length).toBeGreaterThan(0)
    expect(played.steps).not.toBe(play().steps)
  })

  test("slow steps slow their replica while they last", () => {
    const single = { replicas: [config], requests: requests(1) }
    const slow = { kind: "slowSteps" as const, replica: 0, fromUs: 0, untilUs: 50_000, factor: 4 }
    const ahead = play({ ...single, faults: [slow] }).endUs - play(single).endUs
    expect(ahead).toBeGreaterThan(30_000)
    expect(ahead).toBeLessThan(150_000)
  })

  test("with stale snapshots arrivals bounce off a lost replica, and are served all the same", () => {
    const faults = [
      { kind: "staleSnapshots" as const, ageUs: 300_000 },
      { kind: "lostReplica" as const, replica: 2, atUs: 500_000 },
    ]
    const played = play({ faults, router: { kind: "least-loaded" } })
    expectWhole(played)
    expect(played.bounced).toBeGreaterThan(0)
    // What is stale misleads: a herd goes where it was quiet a while ago.
    const fresh = play({ faults: faults.slice(1), router: { kind: "least-loaded" } })
    expect(fresh.bounced).toBe(0)
  })
})

describe("prefill and decode apart", () => {
  const split = { prefill: 1, decode: 2, transferUsPerToken: 10, transferLatencyUs: 5000 }
  const replicas = [
    { ...config, policy: "vllm-prefill-first" as const },
    { ...config, policy: "vllm" as const },
    { ...config, policy: "vllm" as const },
  ]

  test("the first token comes from the prefill side, all others from the decode side, none twice", () => {
    const played = play({ replicas, disaggregated: split })
    expectWhole(played)
    expect(played.transfers).toBe(60)
    const tokens = played.log.filter((line) => line.includes('"type":"token"'))
    const firsts = tokens.filter((line) => line.split(" ")[1] === "0")
    expect(firsts.length).toBe(60)
    const prefilled = played.log.filter(
      (line) => /"sample":(true|false)/.test(line) && /"tokens":\d{2,}/.test(line),
    )
    for (const line of prefilled) expect(line.split(" ")[1]).toBe("0")
  })

  test("the transfer shows between the first token and the second", () => {
    const gap = (transferUsPerToken: number) => {
      const at: number[] = []
      const request = { ...requests(1)[0]!, outputTokens: 3, spec: specOf(0, { promptTokens: 100 }) }
      play({
        replicas,
        requests: [request],
        disaggregated: { ...split, transferUsPerToken },
        onEffect: (effect, nowUs) => {
          if (effect.type === "token") at.push(nowUs)
        },
      })
      return at[1]! - at[0]!
    }
    expect(gap(100) - gap(10)).toBe(90 * 100)
    expect(gap(10)).toBe(5000 + 10 * 100 + 5100)
  })

  test("a full decode side holds transfers back, in order, and loses none", () => {
    const tight = { ...config, limits: { ...LIMITS, kvTokens: 1024, maxSequences: 2 } }
    const played = play({
      replicas: [replicas[0]!, { ...tight, policy: "vllm" }],
      requests: requests(30, 1000),
      disaggregated: { ...split, decode: 1 },
    })
    expectWhole(played, requests(30, 1000))
    expect(played.transferWaitUs).toBeGreaterThan(0)
  })

  test.each([1, 2])("losing replica %i on the way loses no request", (replica) => {
    const two = [replicas[0]!, replicas[0]!, replicas[1]!, replicas[2]!]
    const played = play({
      replicas: two,
      requests: requests(60, 5000),
      disaggregated: { ...split, prefill: 2, transferLatencyUs: 50_000 },
      faults: [{ kind: "lostReplica", replica, atUs: 150_000 }],
    })
    expectWhole(played, requests(60, 5000))
    expect(played.moved).toBeGreaterThan(0)
  })
})

describe("offers on both sides", () => {
  const split = { prefill: 1, decode: 2, transferUsPerToken: 10, transferLatencyUs: 5000, offers: true }

  test("every request gets every token, also when a replica of either side is lost on the way", () => {
    const long = requests(60, 5000)
    expectWhole(play({ disaggregated: split, requests: long }), long)
    const four = [config, config, config, config]
    for (const replica of [1, 3]) {
      const played = play({
        replicas: four,
        requests: long,
        disaggregated: { ...split, prefill: 2 },
        faults: [{ kind: "lostReplica", replica, atUs: 150_000 }],
      })
      expectWhole(played, long)
      expect(played.moved).toBeGreaterThan(0)
    }
  })

  test("a prefill replica promises only what the decode side promises", () => {
    const tight = { ...config, limits: { ...LIMITS, kvTokens: 1024 } }
    const admitted = (decode: ReplicaConfig) => {
      const [prefill, decoder] = [config, decode].map(
        (one, i) =>
          new Machine(i, one, { noiseSigma: 0, bias: 1, seed: 1 }, new Faults([]), new World(1, 16)),
      )
      const transfers = new Transfers([decoder!])
      prefill!.decodes = (request, nowUs) => transfers.promise(request, nowUs)
      const request = specOf(1, { promptTokens: 300, maxOutputTokens: 100 })
      for (let id = 10; id < 13; id++)
        decoder!.replica.handle(
          { type: "arrived", request: specOf(id, { promptTokens: 300, maxOutputTokens: 100 }) },
          0,
        )
      decoder!.replica.poll(0)
      return prefill!.offer(request, 0)
    }
    expect(admitted(config)).toBe(true)
    expect(admitted(tight)).toBe(false)
  })

  test("promises are spread: what was promised to others is room no more, until they are gone", () => {
    const machines = [0, 1].map(
      (i) => new Machine(i, config, { noiseSigma: 0, bias: 1, seed: 1 }, new Faults([]), new World(1, 16)),
    )
    const asked: number[] = []
    for (const { replica, index } of machines) {
      const offer = replica.offer.bind(replica)
      replica.offer = (...question) => {
        asked.push(index)
        return offer(...question)
      }
    }
    const transfers = new Transfers(machines)
    for (let id = 0; id < 4; id++) expect(transfers.promise(specOf(id), 0)).toBe(true)
    expect(asked).toEqual([0, 1, 0, 1])
    transfers.forget(1)
    transfers.promise(specOf(9), 0)
    expect(asked.at(-1)).toBe(1)
  })
})

test("a cancelled request ends wherever it is, also while its KV is on the way", () => {
  const cancelled = requests(20, 5000).map((request) => ({ ...request, cancelAtUs: request.atUs + 30_000 }))
  const disaggregated = { prefill: 1, decode: 2, transferUsPerToken: 0, transferLatencyUs: 100_000 }
  const played = play({ requests: cancelled, disaggregated })
  expect(played.ends.size).toBe(20)
  expect(played.log.filter((line) => line.includes('"cancelled"')).length).toBe(20)
})

test("a request that is cancelled as it arrives ends at once", () => {
  const cancelled = requests(20).map((request) => ({ ...request, cancelAtUs: request.atUs }))
  const played = play({ requests: cancelled })
  expect(
    [...played.ends.values()].map(({ outputTokens, finishedUs, arrivalUs }) => [
      outputTokens,
      finishedUs - arrivalUs,
    ]),
  ).toEqual(Array(20).fill([0, 0]))
})
