/** Running sums agree with the definition (cost.shapeOf), for every batch, layout and speculation length. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { shapeOf } from "../cost.ts"
import { runs } from "../testing.ts"
import { RunningShape } from "./shape.ts"

const item = fc
  .record({
    position: fc.integer({ min: 0, max: 900 }),
    tokens: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 200 })),
    sample: fc.boolean(),
    draft: fc.integer({ min: 0, max: 7 }),
    allRows: fc.boolean(),
  })
  .map(({ allRows, ...one }) => ({
    ...one,
    ...(allRows && { rows: one.tokens }),
    draft: one.sample && one.tokens === 1 ? one.draft : 0,
  }))
const rowsOf = ({ rows, sample }: { rows?: number; sample: boolean }) => rows ?? (sample ? 1 : 0)

test("is the shape of the items with one more", () => {
  const layout = fc.record({
    unifiedKv: fc.boolean(),
    fastPassTokens: fc.constantFrom(1, 2, 4, 64, 128),
  })
  fc.assert(
    fc.property(fc.array(item, { maxLength: 20 }), item, layout, (items, extra, layout) => {
      const running = new RunningShape(layout)
      // Twice, so that what a reset leaves behind would show.
      for (let round = 0; round < 2; round++) {
        running.reset()
        for (const one of items) running.add(one.position, one.tokens, rowsOf(one), one.draft)
      }
      expect(running.with(0, 0, 0, 0)).toEqual(shapeOf(items, layout))
      expect(running.tokens).toBe(shapeOf(items, layout).tokens)
      const { position, tokens, draft } = extra
      expect(running.with(position, tokens, rowsOf(extra), draft)).toEqual(shapeOf([...items, extra], layout))
      expect(running.with(0, 0, 0, 0)).toEqual(shapeOf(items, layout))
    }),
    { numRuns: runs(500) },
  )
})
