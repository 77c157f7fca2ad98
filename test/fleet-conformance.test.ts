/** The fleet in real time decides as the simulated gateway does: what happened to a simulated one, faults and all, is told to
 * a real one by replicas that say exactly that, and its decisions are the same, at the same times. */
import { expect, test } from "vitest"
import type { RequestId, RequestSpec } from "../src/core/protocol.ts"
import { Fleet } from "../src/fleet/fleet.ts"
import { FINISHED, SaidHost, StillClock } from "../src/fleet/testing.ts"
import type { JobEnd, JobSink } from "../src/replica/host.ts"
import type { DispatchEffect, DispatchEvent, JobId } from "../src/router/dispatch.ts"
import { jobOf, Kept } from "../src/serve/host.suite.ts"
import type { ClientEnd } from "../src/sim/clients.ts"
import { routingChances, simulateGateway } from "../src/sim/gateway.ts"
import { gatewayCase } from "../src/sim/gateway-case.ts"
import type { GatewayOptions } from "../src/sim/gateway-options.ts"

const SEEDS = Number(process.env.FLEET_CONFORMANCE_SEEDS ?? 80)
const FIRST = Number(process.env.FLEET_CONFORMANCE_FIRST ?? 1)

interface Told {
  event: DispatchEvent
  nowUs: number
}

/** A replica whose words a script has. */
class ScriptedHost extends SaidHost {
  override giveUp(detail: string): void {
    super.giveUp(detail)
    // What becomes of it is the script's to tell.
    this.state = "down"
  }
}

const decisions = (effects: readonly DispatchEffect[], nowUs: number) =>
  effects.filter(({ type }) => type !== "wake").map((effect) => `${nowUs} ${JSON.stringify(effect)}`)

/** Of a case: what its gateway was told, and what it decided. */
function simulated(options: GatewayOptions): {
  script: Told[]
  log: string[]
  ends: Map<RequestId, ClientEnd>
} {
  const script: Told[] = []
  const log: string[] = []
  const { clients } = simulateGateway({
    ...options,
    tellsStarts: false,
    onDecision: (event, effects, nowUs) => {
      if (event !== null) script.push({ event, nowUs })
      log.push(...decisions(effects, nowUs))
    },
  })
  return { script, log, ends: new Map([...clients.all].map(([id, { end }]) => [id, end!])) }
}

const settled = async () => {
  for (let i = 0; i < 5; i++) await Promise.resolve()
}

async function served(options: GatewayOptions, script: readonly Told[]) {
  const clock = new StillClock()
  const hosts = options.replicas.map((_, i) => new ScriptedHost(`r${i}`))
  const specs = new Map<RequestId, { spec: RequestSpec; patienceUs: number }>()
  const sinks = new Map<RequestId, Kept>()
  const log: string[] = []
  for (const host of hosts) {
    host.state = "starting"
    host.ageAt = (takenAtUs) => clock.nowUs() - takenAtUs
  }
  const fleet = new Fleet({
    ...{ ...options.dispatch, hosts, clock, digestMs: Infinity, firstJob: 1_000_000 },
    ...(options.router && { router: options.router }),
    chances: routingChances(options.seed),
    routed: ({ id }) => specs.get(id)!.spec,
    patienceUs: ({ id }) => specs.get(id)!.patienceUs,
    onDecision: (_event, effects, nowUs) => log.push(...decisions(effects, nowUs)),
  })
  const sinkOf = (job: JobId): JobSink | undefined =>
    hosts.flatMap(({ submitted }) => submitted).find((one) => one.job.id === job)?.sink
  for (const { event, nowUs } of script) {
    clock.runTo(nowUs, event.type === "woke")
    if (event.type === "arrived") {
      const { id, patienceUs, onPromise } = event
      specs.set(id, { spec: event.request as RequestSpec, patienceUs })
      sinks.set(id, new Kept())
      fleet.submit({ ...jobOf(), id }, sinks.get(id)!, onPromise)
    } else tell(event, { fleet, hosts, sinkOf, nowUs, clock })
    await settled()
  }
  return { log, sinks, live: fleet.live }
}

interface Scene {
  fleet: Fleet
  hosts: readonly ScriptedHost[]
  sinkOf: (job: JobId) => JobSink | undefined
  nowUs: number
  clock: StillClock
}

function tell(event: DispatchEvent, { fleet, hosts, sinkOf, nowUs, clock }: Scene): void {
  if (event.type === "cancelled") fleet.cancel(event.id)
  else if (event.type === "offered") {
    hosts[event.replica]!.asked.find(({ job }) => job.id === event.job)?.answer(event.takes)
  } else if (event.type === "withdrawn") {
    for (const { withdrawals } of hosts)
      for (const { id, answer } of withdrawals) if (id === event.job) answer(event.ok)
  } else if (event.type === "progressed") {
    sinkOf(event.job)?.tokens(0, new Array(event.tokens).fill(1), null)
  } else if (event.type === "choiceEnded") sinkOf(event.job)?.end(0, FINISHED)
  else if (event.type === "turnedDown") sinkOf(event.job)?.turnedDown?.(0)
  else if (event.type === "lost") {
    const { reason } = event
    const full = { reason: "refused", detail: "queueFull" } as const
    sinkOf(event.job)?.end(0, { kind: "lost", ...(reason === "full" ? full : { reason, detail: "" }) })
  } else if (event.type === "replicaUp") hosts[event.replica]!.become("ready")
  else if (event.type === "replicaDown") hosts[event.replica]!.become("down")
  else if (event.type === "expected") {
    hosts[event.replica]!.backIn = () => (event.byUs === null ? null : event.byUs - clock.nowUs())
    fleet.look()
  } else if (event.type === "replicaDraining") hosts[event.replica]!.become("draining")
  else if (event.type === "digest") {
    hosts[event.replica]!.say(event.takenAtUs, { snapshot: event.snapshot })
    fleet.look()
  } else expect(event.type, `event at ${nowUs}`).toBe("woke")
}

const KINDS: Partial<Record<ClientEnd, JobEnd["kind"]>> = {
  ...{ finished: "finished", cancelled: "cancelled", poison: "failed" },
  ...{ noReplica: "lost", full: "lost", unserved: "lost" },
}

test("the same decisions at the same times, and every client the same end", async () => {
  let [played, losses, moves] = [0, 0, 0]
  for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
    const { options: drawn } = gatewayCase(seed)
    // A promise is kept or broken once.
    const options = { ...drawn, network: { ...drawn.network!, twice: 0 } }
    // A gateway that is killed tells no script; a probe is answered by the digest, not by a message.
    if (options.faults?.some(({ kind }) => kind === "gatewayLoss")) continue
    const { script, log, ends } = simulated(options)
    if (log.some((line) => line.includes('"probe"'))) continue
    const replay = `replay: FLEET_CONFORMANCE_FIRST=${seed} FLEET_CONFORMANCE_SEEDS=1 npx vitest run test/fleet-conformance.test.ts`
    const fleet = await served(options, script)
    expect(fleet.log, replay).toEqual(log)
    expect(fleet.live, replay).toBe(0)
    for (const [id, sink] of fleet.sinks) expect(sink.ends[0]?.kind, replay).toBe(KINDS[ends.get(id)!])
    played++
    if (log.some((line) => line.includes('"resumed":true'))) losses++
    if (log.some((line) => line.includes('"withdraw"'))) moves++
  }
  // That these say something; a single replayed seed need not.
  if (SEEDS >= 80) expect([played > 30, losses > 20, moves > 4]).toEqual([true, true, true])
}, 120_000)
