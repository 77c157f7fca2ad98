/** Answers of engines that are held to grammars. */
import { beforeEach, expect, test } from "vitest"
import type { RequestId } from "../core/protocol.ts"
import { UserError } from "../errors.ts"
import { FITS_FREE_TEXT, FREE_TEXT } from "./constraint/testing.ts"
import { promptOf, type Script } from "./engine.script.ts"
import { type EngineAtHand, SEQUENCES } from "./engine-at-hand.suite.ts"
import { type Engine, GREEDY } from "./port.ts"

export function grammarsSuite(hand: EngineAtHand): void {
  let engine: Engine
  let run: Script
  beforeEach(() => {
    ;({ engine, run } = hand)
  })

  test("a grammar is kept to, with and without randomness", async () => {
    for (const temperature of [0, 1]) {
      const grammar = `root ::= "{" [a-c]+ "}"`
      const release = await engine.constraints.hold(grammar)
      const id = run.open(promptOf(24, 8), { grammar, temperature, seed: 5, logitBias: [[3, 0]] })
      let text = ""
      for (let i = 0; i < 40 && !run.ended(id); i++) {
        const [row] = await run.step([run.all(id)])
        if (!row!.end) text += Buffer.from(engine.tokenizer.bytes(row!.tokens[0]!)).toString("latin1")
      }
      expect(text).toMatch(run.ended(id) ? /^\{[abc]+\}$/ : /^\{[abc]+$/)
      await run.drop(id)
      release()
    }
  })

  test("an answer ends only where its grammar lets it, and there at once", async () => {
    const grammar = `root ::= "ab" | "abc"`
    await engine.constraints.hold(grammar)
    const logitBias = [[hand.subject.endToken, 100]] as const
    const id = run.open(promptOf(24, 8), { grammar, logitBias, logprobs: 1 })
    for (let i = 0; i < 4 && !run.ended(id); i++) await run.step([run.all(id)])
    const text = Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString()
    expect(text).toBe("ab")
    expect(run.output(id).at(-1)).toBe(hand.subject.endToken)
  })

  test("free text is free, and what begins in it is held to its end", async () => {
    const release = await engine.constraints.hold(FREE_TEXT)
    const [brace] = await engine.tokenizer.encode("{", { special: false, addBos: false })
    let begun = 0
    for (let seed = 0; seed < 12; seed++) {
      const logitBias = [[brace!, seed % 2 === 0 ? 4 : 100]] as const
      const sampling = { grammar: FREE_TEXT, temperature: 1, seed, logitBias, minTokens: 20 }
      const id = run.open(promptOf(60 + seed, 8), sampling)
      for (let i = 0; i < 30 && !run.ended(id); i++) await run.step([run.all(id)])
      expect(run.output(id).length).toBeGreaterThan(20)
      const text = Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString(
        "latin1",
      )
      expect(text).toMatch(FITS_FREE_TEXT)
      begun += text.split("{").length - 1
      await run.drop(id)
    }
    expect(begun).toBeGreaterThan(10)
    release()
  })

  test("several grammars are kept to in one batch, beside free text", async () => {
    const grammars = [`root ::= [a-b]+`, null, `root ::= [0-9]+`, null]
    for (const grammar of grammars) if (grammar !== null) await engine.constraints.hold(grammar)
    const free = await hand.alone(promptOf(25, 8), 12)
    const ids = grammars.map((grammar) => run.open(promptOf(25, 8), { grammar, ignoreEos: grammar === null }))
    for (let i = 0; i < 12; i++) await run.step(ids.filter((id) => !run.ended(id)).map((id) => run.all(id)))
    const text = (id: RequestId) =>
      Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString("latin1")
    expect(text(ids[0]!)).toMatch(/^[ab]+$/)
    expect(text(ids[2]!)).toMatch(/^[0-9]+$/)
    expect([run.output(ids[1]!), run.output(ids[3]!)]).toEqual([free, free])
  })

  test("an evicted request goes on in its grammar", async () => {
    const grammar = `root ::= "0123456789abcdefghij"`
    await engine.constraints.hold(grammar)
    const id = run.open(promptOf(26, 8), { grammar })
    for (let i = 0; i < 5; i++) await run.step([run.all(id)])
    await run.step([], { evict: [id] })
    for (let i = 0; i < 30 && !run.ended(id); i++) await run.step([run.all(id)])
    const text = Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString()
    expect(text).toBe("0123456789abcdefghij")
  })

  test("alternatives that begin alike at every level are followed to any depth", async () => {
    // A parser that keeps every way apart has twice as many at each level: 2^120 here.
    const grammar = `root ::= a\na ::= "[" a "]" | "[" a "," a "]" | "[" "]"`
    await engine.constraints.hold(grammar)
    const [bracket] = await engine.tokenizer.encode("[", { special: false, addBos: false })
    const sampling = { grammar, logitBias: [[bracket!, 100]] as const }
    const ids = Array.from({ length: SEQUENCES }, (_, i) => run.open(promptOf(27 + i, 8), sampling))
    for (let i = 0; i < 120; i++) await run.step(ids.map((id) => run.all(id)))
    for (const id of ids) {
      const text = Buffer.concat(run.output(id).map((token) => engine.tokenizer.bytes(token))).toString()
      expect(text).toMatch(/^\[+[\],[]*$/)
    }
  })

  test("a grammar that is none is the user's error; one that is not on hold is refused", async () => {
    await expect(engine.constraints.hold("root ::= (")).rejects.toThrow(UserError)
    const unknown = { ...GREEDY, grammar: `root ::= "never held"` }
    expect(() => engine.open(1, promptOf(1, 4), unknown)).toThrow(/not compiled/)
    expect(() => engine.open(1, promptOf(1, 4), GREEDY)).not.toThrow()
  })
}
