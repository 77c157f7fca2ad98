/** What engines say with a token: ends, embeddings, log-probabilities, and the choice itself. */
import { beforeEach, describe, expect, test } from "vitest"
import type { RequestId } from "../core/protocol.ts"
import { join, promptOf, type Script } from "./engine.script.ts"
import type { EngineAtHand } from "./engine-at-hand.suite.ts"
import type { Engine, StepRow } from "./port.ts"

export function answersSuite(hand: EngineAtHand): void {
  let engine: Engine
  let run: Script
  beforeEach(() => {
    ;({ engine, run } = hand)
  })

  test("an end token ends a request, unless it is to be ignored", async () => {
    const logitBias = [[hand.subject.endToken, 100]] as const
    const [ends, goesOn] = [false, true].map((ignoreEos) =>
      run.open(promptOf(21, 8), { logitBias, ignoreEos }),
    )
    const rows = await run.step([run.all(ends!), run.all(goesOn!)])
    expect(rows.map((row) => row.end)).toEqual([true, false])
    expect(rows[0]!.tokens).toEqual([hand.subject.endToken])
    await expect(engine.execute(run.batch([run.all(ends!)]))).rejects.toThrow(/has ended/)
    for (let i = 0; i < 20; i++) expect((await run.step([run.all(goesOn!)]))[0]!.end).toBe(false)
  })

  test("no end token comes before the least number of tokens", async () => {
    const id = run.open(promptOf(21, 8), { logitBias: [[hand.subject.endToken, 100]], minTokens: 3 })
    const ends: boolean[] = []
    for (let i = 0; i < 4; i++) ends.push((await run.step([run.all(id)]))[0]!.end)
    expect(ends).toEqual([false, false, false, true])
  })

  describe("embeddings", () => {
    const prompt = promptOf(33, 70)
    const asked = { embedding: true, ignoreEos: true }
    const embed = async (chunk: number, tokens = prompt, beside: RequestId[] = []) => {
      const id = run.open(tokens, asked)
      const others = () => beside.map((other) => run.all(other))
      while (run.held(id) + chunk < tokens.length) await run.step([run.next(id, chunk), ...others()])
      const rows = await run.step([run.all(id), ...others()])
      const { embedding, tokens: made } = rows.find((row) => row.id === id)!
      expect(made).toHaveLength(1)
      await run.drop(id)
      return embedding!
    }
    const cosine = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0)

    test("are of length one, and the same however a prompt is computed", async () => {
      const whole = await embed(100)
      expect(cosine(whole, whole)).toBeCloseTo(1, 4)
      const other = run.open(promptOf(34, 20), { ignoreEos: true })
      for (const chunk of [1, 33])
        expect(cosine(whole, await embed(chunk, prompt, [other]))).toBeCloseTo(1, 4)
      expect(cosine(whole, await embed(100, promptOf(35, 70)))).toBeLessThan(0.999)
    })

    test("change nothing of the answers beside them", async () => {
      const expected = await hand.alone(promptOf(36, 30), 6)
      const id = run.open(promptOf(36, 30), { ignoreEos: true })
      const [first, second] = [run.open(prompt, asked), run.open(promptOf(37, 9), asked)]
      const rows = await run.step([run.next(first, 40), run.all(id), run.all(second)])
      expect(rows.filter((row) => row.embedding !== undefined).map((row) => row.id)).toEqual([second])
      await run.step([run.all(id), run.all(first)], { release: [second] })
      for (let i = 0; i < 4; i++) await run.step([run.all(id)])
      expect(run.output(id)).toEqual(expected)
    })

    test("are told once their KV, lost in between, is computed again; and of a prompt whose beginning another has", async () => {
      const whole = await embed(100)
      const id = run.open(prompt, asked)
      await run.step([run.next(id, 40)])
      const other = run.open(promptOf(38, 5))
      await run.step([run.all(other)], { evict: [id] })
      const rows = await run.step([run.all(id)])
      expect(cosine(rows[0]!.embedding!, whole)).toBeCloseTo(1, 4)
      if (engine.model.pooling !== "last") return
      const copy = run.open(prompt, asked)
      const copied = await run.step([run.copied(copy, id, 64)])
      expect(cosine(copied[0]!.embedding!, whole)).toBeCloseTo(1, 4)
    })
  })

  describe("log-probabilities of a prompt's tokens", () => {
    const prompt = promptOf(30, 70)

    test("are those with which they were produced, however it is computed", async () => {
      const told = run.open(prompt, { logprobs: 3, ignoreEos: true })
      const expected = []
      for (let i = 0; i < 6; i++) expected.push(...(await run.step([run.all(told)]))[0]!.logprobs!)
      const whole = join(prompt, Int32Array.from(run.output(told)))
      const beside = run.open(promptOf(31, 20))
      for (const chunk of [1, 33, 76]) {
        const id = run.open(whole, { promptLogprobs: 3, logprobs: 3, ignoreEos: true })
        while (run.held(id) + chunk < whole.length)
          expect((await run.step([run.next(id, chunk), run.all(beside)])).map((row) => row.id)).toEqual([
            beside,
          ])
        const [row] = (await run.step([run.all(id)])) as [StepRow]
        expect(row.prompt).toHaveLength(whole.length - 1)
        expect(row.prompt!.map(({ token }) => token)).toEqual([...whole.subarray(1)])
        for (const [i, { token, logprob, top }] of row.prompt!.slice(prompt.length - 1).entries()) {
          expect(token).toBe(expected[i]!.token)
          expect(logprob).toBeCloseTo(expected[i]!.logprob, 3)
          expect(top.map((one) => one.token)).toEqual(expected[i]!.top.map((one) => one.token))
        }
        expect((await run.step([run.all(id)]))[0]!.prompt).toBeUndefined()
        await run.drop(id)
      }
    })

    test("are told once, also where its KV was lost in between", async () => {
      const [id, other] = [run.open(prompt, { promptLogprobs: 2 }), run.open(prompt)]
      await run.step([run.next(id, 40), run.all(other)])
      await run.step([run.all(other)], { evict: [id] })
      await run.step([run.next(id, 20), run.all(other)])
      const [row, after] = [(await run.step([run.all(id)]))[0]!, (await run.step([run.all(id)]))[0]!]
      expect(row.prompt).toHaveLength(prompt.length - 1)
      expect(row.prompt!.every(({ top }) => top.length === 2)).toBe(true)
      expect(after.prompt).toBeUndefined()
      expect(row.tokens).toEqual([run.output(other)[0]])
    })

    test("are none of what goes on here, nor where they are not asked for", async () => {
      const id = run.open(prompt, { promptLogprobs: 2, ignoreEos: true }, [30, 31])
      expect((await run.step([run.all(id)]))[0]!.prompt).toBeUndefined()
    })
  })

  test("log-probabilities are ordered, negative, and lead with the greedy choice", async () => {
    const id = run.open(promptOf(22, 8), { logprobs: 4, ignoreEos: true })
    const [row] = await run.step([run.all(id)])
    const [logprob] = row!.logprobs!
    expect(logprob!.token).toBe(row!.tokens[0])
    expect(logprob!.top).toHaveLength(4)
    expect(logprob!.top[0]).toEqual({ token: logprob!.token, logprob: logprob!.logprob })
    const values = logprob!.top.map((entry) => entry.logprob)
    expect(values).toEqual(values.toSorted((x, y) => y - x))
    expect(values[0]).toBeLessThan(0)
    expect(values.reduce((sum, value) => sum + Math.exp(value), 0)).toBeLessThanOrEqual(1)
  })

  test("sampling is reproducible by its seed", async () => {
    const draw = (seed: number) => hand.alone(promptOf(23, 8), 24, { temperature: 1.2, seed })
    const first = await draw(1)
    expect(await draw(1)).toEqual(first)
    expect(await draw(2)).not.toEqual(first)
  })
}
