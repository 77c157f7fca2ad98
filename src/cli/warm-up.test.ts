/** Made-up requests before the first one: they come through, in each kind of process, and leave nothing behind. */
import { expect, test } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { POLICY_NAMES, type PolicyName } from "../core/policy/index.ts"
import { vllm } from "../fleet/backends/vllm.ts"
import { LeastLoaded } from "../fleet/picker/least-loaded.ts"
import { Twins } from "../fleet/picker/twins.ts"
import { warmUpGateway, warmUpParent, warmUpServer } from "./warm-up.ts"
import { type PickerWarmUp, warmUpPicker } from "./warm-up-picker.ts"
import { warmUpWorker } from "./warm-up-replica.ts"
import { bodyOf, often } from "./warm-up-requests.ts"

const classes = defaultSloClasses()
const optionsOf = (policy: PolicyName) => ({ classes, policy, policyOptions: {} })

const twins = () =>
  new Twins({
    ...{ kind: vllm, byPriority: false, apps: classes.all.length, mostInFlight: 256, probes: null },
    ...{ nowUs: () => performance.now() * 1000, warn: () => {} },
  })
const picker = (changes: Partial<PickerWarmUp> = {}) => ({
  ...{ classes, chooser: twins(), rewrite: { priority: "off", sloArguments: false } as const, named: 1 },
  ...changes,
})

const kinds = {
  ...{ warmUpServer, warmUpParent, warmUpGateway, warmUpWorker },
  warmUpPicker: (_: unknown, forMs: number) => warmUpPicker(picker(), forMs),
}

test.each(Object.entries(kinds))("%s serves its requests and is gone", async (_, warmUp) => {
  // Timers, sockets, ports. What is on its way at this moment is none of these.
  const open = () => process.getActiveResourcesInfo().filter((kind) => kind !== "Immediate").length
  const before = open()
  expect(await warmUp(optionsOf("slos-serve"), 50)).toBeGreaterThan(1)
  await expect.poll(open).toBeLessThanOrEqual(before)
})

test.each(POLICY_NAMES)("policy %s warms up as well", async (policy) => {
  expect(await warmUpServer(optionsOf(policy), 1)).toBeGreaterThan(1)
})

test("it ends after its time, or after enough requests, whichever is first", async () => {
  let ran = 0
  const run = async () => {
    ran++
  }
  expect(await often(Number.POSITIVE_INFINITY, run)).toBe(ran)
  expect(ran).toBeGreaterThan(100)
  expect(await often(0, run)).toBe(0)
})

test("requests are of several kinds and lengths", () => {
  const bodies = Array.from({ length: 40 }, (_, n) => bodyOf(n))
  const kindsSeen = new Set(bodies.map(({ path, body }) => `${path} ${(body as { stream: boolean }).stream}`))
  expect(kindsSeen.size).toBeGreaterThanOrEqual(3)
  expect(new Set(bodies.map(({ body }) => JSON.stringify(body).length)).size).toBeGreaterThan(20)
})

test.each<[string, () => Partial<PickerWarmUp>]>([
  ["by load", () => ({ chooser: new LeastLoaded(1) })],
  ["priorities", () => ({ rewrite: { priority: "low-first", sloArguments: false } })],
  ["SLO arguments", () => ({ rewrite: { priority: "high-first", sloArguments: true } })],
  ["fallbacks", () => ({ named: 3 })],
])("a picker with %s warms up as well", async (_, changes) => {
  expect(await warmUpPicker(picker(changes()), 50)).toBeGreaterThan(1)
})

test("a picker that fails at its requests says so", async () => {
  const chooser = new LeastLoaded(100)
  chooser.sent = () => {
    throw new Error("made to fail")
  }
  await expect(warmUpPicker(picker({ chooser }), 50)).rejects.toThrow(/had an error/)
})
