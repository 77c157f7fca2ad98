/** Batches that an engine refuses: the scheduler and it do not mean the same. */
import { beforeEach, describe, expect, test } from "vitest"
import type { Batch, BatchItem } from "../core/protocol.ts"
import { promptOf, type Script } from "./engine.script.ts"
import { type EngineAtHand, SEQUENCES, SUITE_CONTEXT_TOKENS } from "./engine-at-hand.suite.ts"
import { type Engine, GREEDY } from "./port.ts"

export function refusalsSuite(hand: EngineAtHand): void {
  let engine: Engine
  let run: Script
  beforeEach(() => {
    ;({ engine, run } = hand)
  })

  describe("a wrong batch is refused", () => {
    const item = (change: Partial<BatchItem>): BatchItem => ({
      id: 1,
      position: 0,
      tokens: 20,
      sample: true,
      draft: 0,
      ...change,
    })
    const cases: [string, BatchItem[], Partial<Batch>][] = [
      ["unknown request", [item({ id: 99 })], {}],
      [
        "the same request twice",
        [item({ tokens: 5, sample: false }), item({ tokens: 5, sample: false })],
        {},
      ],
      ["a gap", [item({ position: 3, tokens: 17 })], {}],
      ["no tokens", [item({ tokens: 0, sample: false })], {}],
      ["more tokens than known", [item({ tokens: 21 })], {}],
      ["sampling too early", [item({ tokens: 10 })], {}],
      ["not sampling at the end", [item({ sample: false })], {}],
      ["speculation", [item({ draft: 2 })], {}],
      ["computing what it releases", [item({})], { release: [1] }],
      ["releasing what is not open", [], { release: [99] }],
      ["evicting what is not open", [], { evict: [99] }],
      ["dropping twice", [], { release: [1], evict: [1] }],
      ["trimming what is not open", [], { trim: [{ id: 99, tokens: 1 }] }],
      ["trimming to nothing", [], { trim: [{ id: 1, tokens: 0 }] }],
      ["trimming what it computes", [item({})], { trim: [{ id: 1, tokens: 1 }] }],
      ["trimming and dropping", [], { release: [1], trim: [{ id: 1, tokens: 1 }] }],
      [
        "copying more than the source holds",
        [item({ position: 16, tokens: 4, copy: { from: 2, tokens: 16 } })],
        {},
      ],
      ["copying from itself", [item({ position: 16, tokens: 4, copy: { from: 1, tokens: 16 } })], {}],
      ["copying from no request", [item({ position: 16, tokens: 4, copy: { from: 99, tokens: 16 } })], {}],
    ]
    test.each(cases)("%s", async (_, items, drop) => {
      engine.open(1, promptOf(25, 20), GREEDY)
      engine.open(2, promptOf(25, 20), GREEDY)
      const batch: Batch = { number: 1, items, evict: [], release: [], predictedUs: 0, ...drop }
      await expect(engine.execute(batch)).rejects.toThrow(/wrong batch 1/)
      const good = await engine.execute({ ...batch, items: [item({})], evict: [], release: [], trim: [] })
      expect(good).toMatchObject({ ok: true })
    })

    test("too many tokens, sequences or too long a request", async () => {
      const many = Array.from({ length: SEQUENCES + 1 }, () => run.open(promptOf(26, 40)))
      await expect(engine.execute(run.batch(many.map((id) => run.next(id, 1))))).rejects.toThrow(/sequences/)
      await expect(engine.execute(run.batch(many.slice(1).map((id) => run.all(id))))).rejects.toThrow(
        /batch limit/,
      )
      expect(() => engine.open(1000, promptOf(1, SUITE_CONTEXT_TOKENS + 1), GREEDY)).toThrow(/exceeds/)
    })

    test("while a step runs, and after the end", async () => {
      const [a, b] = [run.open(promptOf(27, 40)), run.open(promptOf(28, 40))]
      const running = engine.execute(run.batch([run.all(a)]))
      await expect(engine.execute(run.batch([run.all(b)]))).rejects.toThrow(/while another/)
      expect(await running).toMatchObject({ ok: true })
      await engine.close()
      await expect(engine.execute(run.batch([run.all(b)]))).rejects.toThrow(/closed/)
    })
  })
}
