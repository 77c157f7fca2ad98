/** What an offer promises is kept, with any number of batches in flight: of the request that was offered, and of all that had an
 * SLO to keep by then. */
import { expect, test } from "vitest"
import type { Batch, RequestId } from "./protocol.ts"
import { Played } from "./replica-testing.ts"
import { specOf } from "./testing.ts"

const OFFERED = 99
const slo = (ttftUs: number) => ({ ...specOf(0).slo, ttftUs, tpotUs: 500_000 })

/** A replica with more than it can have in time: twenty prompts of 900 tokens, 100 ms each, due in a second. */
class Overfull {
  readonly played: Played
  readonly #depth: number
  readonly #flying: Batch[] = []

  constructor(depth: number) {
    this.#depth = depth
    this.played = new Played({ depth, policy: "slos-serve" })
    for (let id = 1; id <= 20; id++)
      this.played.arrives(id, { promptTokens: 900, maxOutputTokens: 10, slo: slo(1_000_000) })
  }

  /** As many batches as may be are in flight, and the first lands. */
  step(): boolean {
    this.#takeOff()
    const batch = this.#flying.shift()
    if (batch !== undefined) this.played.done(batch)
    this.#takeOff()
    return batch !== undefined
  }

  #takeOff(): void {
    while (this.#flying.length < this.#depth) {
      const run = this.played.poll().find((effect) => effect.type === "run")
      if (run === undefined) return
      this.#flying.push(run.batch)
    }
  }

  /** Those that were not turned down. */
  get promised(): RequestId[] {
    const tiers = new Map(Array.from({ length: 20 }, (_, i) => [i + 1, true]))
    for (const { type, ...effect } of this.played.effects)
      if (type === "demoted" || type === "promoted")
        tiers.set((effect as { id: number }).id, type === "promoted")
    return [...tiers].filter(([, kept]) => kept).map(([id]) => id)
  }
}

test.each([1, 2, 3])(
  "with %i in flight: what is taken is in time, and so is all that was promised",
  (depth) => {
    const taken = new Map<number, number>()
    let refused = 0
    for (const steps of [0, 1, 2, 5, 9]) {
      for (const promptTokens of [50, 200, 400, 600, 900]) {
        for (const ttftUs of [60_000, 150_000, 500_000, 1_000_000]) {
          const replica = new Overfull(depth)
          const { played } = replica
          for (let i = 0; i < steps; i++) replica.step()
          const offered = { promptTokens, maxOutputTokens: 20, slo: slo(ttftUs), arrivalUs: played.nowUs }
          if (!played.replica.offer(specOf(OFFERED, offered), played.nowUs)) {
            refused++
            continue
          }
          taken.set(promptTokens, (taken.get(promptTokens) ?? 0) + 1)
          const { promised } = replica
          played.arrives(OFFERED, offered)
          while (replica.step());
          const inTime = new Set(
            played
              .of("finished")
              .filter(({ outcome }) => outcome.attained)
              .map(({ id }) => id),
          )
          for (const id of [OFFERED, ...promised])
            expect(inTime.has(id), `${promptTokens} tokens in ${ttftUs} µs after ${steps} steps: ${id}`).toBe(
              true,
            )
        }
      }
    }
    // Small ones fit into what the large ones leave of their second; another large one does not.
    expect([...taken.keys()]).toEqual(expect.arrayContaining([50, 200]))
    expect(refused).toBeGreaterThan(10)
  },
)

test.each([1, 2, 3])("with %i in flight: one more of those that were turned down is refused", (depth) => {
  const replica = new Overfull(depth)
  for (let steps = 0; steps < 4; steps++) {
    replica.step()
    const { played } = replica
    const alike = { promptTokens: 900, maxOutputTokens: 10, slo: slo(1_000_000 - played.nowUs) }
    const offered = specOf(OFFERED, { ...alike, arrivalUs: played.nowUs })
    expect(played.replica.offer(offered, played.nowUs), `step ${steps}`).toBe(false)
  }
})
