/** Answers of a bare engine, whole or gone on with after tokens that are known. */
import type { Engine, Sampling } from "../../src/engine/port.ts"

const SEQUENCES = 4
const CHUNK_TOKENS = 48

let ids = 0
/** Each prompt after these tokens, up to `most`; four at once, in pieces. */
export async function answers(
  engine: Engine,
  prompt: Int32Array,
  sampling: Sampling,
  known: readonly number[][],
  most: number,
): Promise<number[][]> {
  const all = known.map((tokens) => ({ id: ++ids, output: [...tokens], held: 0 }))
  let number = 0
  for (let i = 0; i < all.length; i += SEQUENCES) {
    const some = all.slice(i, i + SEQUENCES)
    for (const { id, output } of some) engine.open(id, prompt, sampling, Int32Array.from(output))
    for (;;) {
      const items = some
        .filter(({ output }) => output.length < most)
        .map(({ id, output, held }) => {
          const tokens = Math.min(CHUNK_TOKENS, prompt.length + output.length - held)
          const sample = held + tokens === prompt.length + output.length
          return { id, position: held, tokens, sample, draft: 0 }
        })
      if (items.length === 0) break
      const step = await engine.execute({ number: ++number, items, evict: [], release: [], predictedUs: 0 })
      if (!step.ok) throw new Error(step.message)
      for (const { id, tokens } of items) some.find((one) => one.id === id)!.held += tokens
      for (const { id, tokens } of step.rows) some.find((one) => one.id === id)!.output.push(...tokens)
    }
    const release = some.map(({ id }) => id)
    await engine.execute({ number: ++number, items: [], evict: [], release, predictedUs: 0 })
  }
  return all.map(({ output }) => output)
}
