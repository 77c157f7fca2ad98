/** Step times of an engine found out from when its tokens come. */
import { createServer, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { afterEach, describe, expect, test } from "vitest"
import { type CostModel, shapeOf, stepUs } from "../../core/cost.ts"
import { type CapturedGraphs, CPU_GUESS, GPU_GUESS, LAYOUT } from "../../fit/guess.ts"
import { VllmClient } from "./client.ts"
import { stepsOf } from "./gaps.ts"
import { profileVllm } from "./profile-vllm.ts"
import { type Round, roundsOf } from "./rounds.ts"
import { VirtualVllm } from "./testing.ts"

const GRAPHS: CapturedGraphs = {
  sizes: [1, 2, 4, ...Array.from({ length: 32 }, (_, i) => 8 * (i + 1))],
  ...{ decodes: "full", mixed: "piecewise", decodeTokens: 1 },
}
const PIECE = { step: 8000, tokens: 60, sequences: 20, slowPairs: 0.05, fastPairs: 0.01 }
const COST: CostModel = { pieces: [PIECE], residualSigma: 0.02, ...LAYOUT }
const COARSE: CapturedGraphs = { ...GRAPHS, sizes: [1, 8, 64, 256] }
const GRID = { maxConcurrency: 64, maxPrompt: 1024, contextTokens: 4096, quick: false }

describe("the grid", () => {
  test("fits the engine's context, and asks for few and many, short and long", () => {
    for (const contextTokens of [64, 256, 4096])
      for (const maxConcurrency of [1, 5, 256])
        for (const { streams } of roundsOf({ ...GRID, contextTokens, maxConcurrency })) {
          for (const one of streams)
            expect(one.promptTokens + one.outputTokens).toBeLessThanOrEqual(contextTokens)
          expect(streams.filter(({ after }) => after === 0).length).toBeLessThanOrEqual(maxConcurrency)
          expect(streams[0]!.after).toBe(0)
        }
    const rounds = roundsOf(GRID)
    const decodes = rounds.filter(({ kind }) => kind === "decodes")
    expect(Math.max(...decodes.map(({ streams }) => streams.length))).toBe(64)
    expect(new Set(decodes.map(({ streams }) => streams[0]!.promptTokens)).size).toBe(2)
    const prompts = rounds.filter(({ kind }) => kind === "prompts").flatMap(({ streams }) => streams)
    expect(Math.max(...prompts.map(({ promptTokens }) => promptTokens))).toBe(1024)
    expect(roundsOf({ ...GRID, quick: true }).length).toBeLessThan(rounds.length)
  })
})

describe("steps seen from outside", () => {
  const play = async (round: Round, cost = COST, maxBatchTokens = 8192) =>
    stepsOf(round, await new VirtualVllm({ cost, noise: 0, jitterUs: 0, maxBatchTokens }).play(round))
  const streams = (count: number, promptTokens = 24, outputTokens = 40) =>
    Array.from({ length: count }, () => ({ promptTokens, outputTokens, after: 0 }))

  test("of decodes are what they took", async () => {
    const found = await play({ kind: "decodes", streams: streams(5, 100) })
    expect(found.length).toBeGreaterThan(6)
    for (const { shape, us } of found) {
      expect(shape).toMatchObject({ tokens: 5, sequences: 5 })
      expect(us / stepUs(COST, shape)).toBeCloseTo(1, 3)
    }
  })

  test("only count while all decode", async () => {
    const late = [...streams(2, 24, 60), { promptTokens: 24, outputTokens: 20, after: 0 }]
    // Two at a time: the third waits until one of the others is done.
    const round: Round = { kind: "decodes", streams: late }
    const times = await new VirtualVllm({ cost: COST, maxSequences: 2, noise: 0, jitterUs: 0 }).play(round)
    expect(stepsOf(round, times)).toEqual([])
  })

  test("with a prompt are the gap of the others that ends with its first token", async () => {
    const coming = [64, 300].map((promptTokens, i) => ({ promptTokens, outputTokens: 1, after: 8 + 8 * i }))
    const found = await play({ kind: "prompts", streams: [...streams(4), ...coming] })
    expect(found.map(({ shape }) => shape.tokens)).toEqual([68, 304])
    for (const { shape, us } of found) expect(us / stepUs(COST, shape)).toBeCloseTo(1, 2)
  })

  test("of a prompt that was cut into several are left out", async () => {
    const coming = [{ promptTokens: 900, outputTokens: 1, after: 8 }]
    const round: Round = { kind: "prompts", streams: [...streams(4, 24, 60), ...coming] }
    expect(await play(round, COST, 320)).toEqual([])
    expect(await play(round)).toHaveLength(1)
  })

  test("of a stream that sends several tokens at once are shared out", () => {
    const tokens = Array.from({ length: 20 }, (_, i) => ({ count: 2, atUs: 20_000 * i }))
    const round: Round = { kind: "decodes", streams: streams(1) }
    const found = stepsOf(round, [{ sentUs: 0, tokens }])
    expect(found.length).toBeGreaterThan(3)
    for (const { us } of found) expect(us).toBe(10_000)
  })

  test("of answers that broke off are none", () => {
    const round: Round = { kind: "decodes", streams: streams(2) }
    expect(
      stepsOf(round, [
        { sentUs: 0, tokens: [] },
        { sentUs: 0, tokens: [] },
      ]),
    ).toEqual([])
    expect(
      stepsOf({ ...round, kind: "prompts" }, [
        { sentUs: 0, tokens: [] },
        { sentUs: 0, tokens: [] },
      ]),
    ).toEqual([])
  })
})

describe("a profile", () => {
  const options = { ...GRID, guess: GPU_GUESS, graphs: [undefined, GRAPHS] }
  const batch = (count: number, context: number, chunk: number) => {
    const decodes = Array.from({ length: count }, () => ({
      position: context,
      tokens: 1,
      sample: true,
      draft: 0,
    }))
    return chunk === 0 ? decodes : [...decodes, { position: 0, tokens: chunk, sample: true, draft: 0 }]
  }
  const BATCHES = [
    batch(1, 100, 0),
    batch(20, 900, 0),
    batch(50, 300, 0),
    batch(10, 100, 700),
    batch(2, 50, 200),
  ]
  const off = (model: CostModel, truth: CostModel) =>
    Math.max(
      ...BATCHES.map((items) =>
        Math.abs(stepUs(model, shapeOf(items, model)) / stepUs(truth, shapeOf(items, truth)) - 1),
      ),
    )

  test("finds a known engine, and says how well", async () => {
    const { model, heldOut, faults, steps } = await profileVllm(new VirtualVllm({ cost: COST }), options)
    expect(off(model, COST)).toBeLessThan(0.1)
    expect(faults).toEqual([])
    expect(heldOut.count).toBeGreaterThan(20)
    expect(heldOut.p50).toBeLessThan(0.05)
    expect(heldOut.middle).toBeCloseTo(1, 1)
    expect(steps.length).toBeGreaterThan(100)
    expect(model.graphs).toBeUndefined()
  })

  test("finds out that an engine has graphs", async () => {
    const cost: CostModel = {
      ...COST,
      pieces: [{ ...PIECE, tokens: 200 }],
      graphs: { ...COARSE, piecewiseUs: 2000, eagerUs: 4000 },
    }
    const { model } = await profileVllm(new VirtualVllm({ cost }), {
      ...options,
      graphs: [undefined, COARSE],
    })
    expect(model.graphs?.sizes).toEqual(COARSE.sizes)
    expect(off(model, cost)).toBeLessThan(0.15)
  })

  test("finds a processor", async () => {
    const cost: CostModel = {
      ...COST,
      pieces: [{ step: 20_000, tokens: 4000, sequences: 1000, slowPairs: 2, fastPairs: 0.6 }],
    }
    const { model, faults } = await profileVllm(new VirtualVllm({ cost }), { ...options, guess: CPU_GUESS })
    expect(off(model, cost)).toBeLessThan(0.1)
    expect(faults).toEqual([])
  })

  test("that is guesswork says so", async () => {
    const wild = await profileVllm(new VirtualVllm({ cost: COST, noise: 0.8 }), options)
    expect(wild.faults.join()).toContain("off by more than")
    const blind = await profileVllm(
      { play: ({ streams }) => Promise.resolve(streams.map(() => ({ sentUs: 0, tokens: [] }))) },
      options,
    )
    expect(blind.faults.join()).toContain("only 0 steps")
  })
})

describe("over HTTP", () => {
  let server: Server | null = null
  afterEach(() => {
    server?.closeAllConnections()
    server?.close()
    server = null
  })
  type Body = { prompt: number[]; max_tokens: number; model: string }
  type Answer = (body: Body, response: ServerResponse) => void

  async function serve(
    answer: Answer,
    models: object | null = { data: [{ id: "m-1", root: "org/m-1", max_model_len: 512 }] },
  ): Promise<string> {
    server = createServer(async (request, response) => {
      if (request.url === "/v1/models")
        return void response.writeHead(models === null ? 404 : 200).end(JSON.stringify(models ?? {}))
      if (request.url === "/version") return void response.end('{"version":"0.32.0"}')
      let text = ""
      for await (const part of request) text += part
      answer(JSON.parse(text) as Body, response)
    })
    await new Promise<void>((resolve) => server!.listen(0, "127.0.0.1", resolve))
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }
  const event = (value: object) => `data: ${JSON.stringify(value)}\n\n`
  const streaming: Answer = (body, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" })
    let sent = 0
    const next = () => {
      if (++sent > body.max_tokens) return void response.end("data: [DONE]\n\n")
      response.write(event({ choices: [{ index: 0, text: " a", token_ids: [sent] }] }))
      setTimeout(next, 1)
    }
    next()
  }

  test("each token is noted, and prompts come when the first stream has enough", async () => {
    const prompts: number[][] = []
    const url = await serve((body, response) => {
      prompts.push(body.prompt)
      expect(body).toMatchObject({
        model: "m-1",
        stream: true,
        ignore_eos: true,
        return_token_ids: true,
        min_tokens: body.max_tokens,
      })
      streaming(body, response)
    })
    const client = await VllmClient.connect({ url })
    expect(client.served).toEqual({ id: "m-1", root: "org/m-1", contextTokens: 512, version: "0.32.0" })
    const stream = (promptTokens: number, outputTokens: number, after = 0) => ({
      promptTokens,
      outputTokens,
      after,
    })
    const times = await client.play({
      kind: "prompts",
      streams: [stream(10, 12), stream(10, 3), stream(40, 1, 6)],
    })
    expect(times.map(({ tokens }) => tokens.length)).toEqual([12, 3, 1])
    expect(times[2]!.sentUs).toBeGreaterThanOrEqual(times[0]!.tokens[5]!.atUs)
    expect(times[2]!.sentUs).toBeLessThan(times[0]!.tokens[11]!.atUs)
    expect(prompts.map(({ length }) => length)).toEqual([10, 10, 40])
    expect(prompts[0]).not.toEqual(prompts[1])
    await client.close()
  })

  test("text alone counts as a token", async () => {
    const url = await serve((_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" })
      response.end(
        event({ choices: [{ text: "a" }] }) +
          event({ choices: [{ text: "" }] }) +
          event({ choices: [] }) +
          "data: [DONE]\n\n",
      )
    })
    const client = await VllmClient.connect({ url })
    const [times] = await client.play({
      kind: "decodes",
      streams: [{ promptTokens: 4, outputTokens: 1, after: 0 }],
    })
    expect(times!.tokens).toHaveLength(1)
    await client.close()
  })

  test("what goes wrong is one line", async () => {
    await expect(VllmClient.connect({ url: "http://127.0.0.1:9" })).rejects.toThrow("does not answer")
    await expect(VllmClient.connect({ url: await serve(streaming, null) })).rejects.toThrow(
      "answers 404 and no list of models",
    )
    server!.close()
    const url = await serve(streaming)
    await expect(VllmClient.connect({ url, model: "other" })).rejects.toThrow(
      'serves no model "other"; it serves m-1',
    )
    server!.close()
    const one: Round = { kind: "decodes", streams: [{ promptTokens: 4, outputTokens: 2, after: 0 }] }
    const refusing = await VllmClient.connect({
      url: await serve((_, response) =>
        response.writeHead(400).end(JSON.stringify({ error: { message: "too long" } })),
      ),
    })
    await expect(refusing.play(one)).rejects.toThrow("refuses a request (400): too long")
    server!.close()
    const breaking = await VllmClient.connect({
      url: await serve((_, response) =>
        response.writeHead(200).end(event({ error: { message: "engine died" } })),
      ),
    })
    await expect(breaking.play(one)).rejects.toThrow("broke an answer off")
    server!.close()
    const dying = await VllmClient.connect({
      url: await serve((_, response) => {
        response.writeHead(200)
        response.write(event({ choices: [{ text: "a" }] }))
        setTimeout(() => response.destroy(), 5)
      }),
    })
    await expect(dying.play(one)).rejects.toThrow("broke an answer off")
  })
})
