/** The way of a request through an endpoint picker, gone before the first one comes (warm-up.ts says why): a picker of its
 * own on a free port, and Envoy's part played against it, in the modes that gateways use. */

import {
  bodyMessage,
  EnvoyPart,
  type EnvoyStream,
  headerMap,
  headersMessage,
} from "../fleet/picker/envoy-part.ts"
import { EndpointPicker, type PickerOptions } from "../fleet/picker/run.ts"
import { BODY_MODE, type ProcessingRequest } from "../fleet/picker/wire.ts"
import { bodyOf, OUTPUT_TOKENS, often, TPOT_MS, TTFT_MS } from "./warm-up-requests.ts"

/** `chooser`: one that asks no engine how it is. It is closed at the end. */
export type PickerWarmUp = Pick<PickerOptions, "classes" | "chooser" | "rewrite" | "named">

const HOST = "127.0.0.1"
/** Named to the gateway, which is not there: no request gets to them. */
const ENDPOINTS = [1, 2].map((port) => ({ host: HOST, port }))
const ROOM = { mostHeld: 100, mostHeldBytes: 1 << 24, longestHoldUs: 60e6, late: "send" } as const
const PROMPT_TOKENS = 12

/** Takes `forMs`, or less; resolves with how many requests it was. */
export async function warmUpPicker(options: PickerWarmUp, forMs: number): Promise<number> {
  const picker = new EndpointPicker({
    ...{ host: HOST, port: 0, metricsPort: null, tls: null, endpoints: ENDPOINTS, endpointsFile: null },
    ...{ flow: ROOM, bodyLimit: 1 << 20, warn: () => {} },
    ...options,
  })
  try {
    const { port } = await picker.start()
    const envoy = new EnvoyPart(`${HOST}:${port}`)
    try {
      return await often(forMs, (n) => request(envoy.open(), n))
    } finally {
      envoy.close()
    }
  } finally {
    await picker.stop(0)
  }
}

/** From its headers to the end of its answer. */
async function request(envoy: EnvoyStream, n: number): Promise<void> {
  const duplex = n % 3 === 0
  const { path, body, stream } = bodyOf(n)
  const head = {
    ...{ ":method": "POST", ":path": path, "content-type": "application/json" },
    ...{ "x-llm-d-slo-ttft-ms": String(TTFT_MS), "x-llm-d-slo-tpot-ms": String(TPOT_MS) },
  }
  const modes = duplex
    ? { mode: BODY_MODE.fullDuplex, responseMode: BODY_MODE.fullDuplex }
    : { mode: BODY_MODE.buffered, responseMode: BODY_MODE.streamed }
  envoy.say(headersMessage(head, modes))
  if (!duplex) await answered(envoy)
  envoy.say(bodyMessage(JSON.stringify(body)))
  if (duplex) await answered(envoy)
  await answered(envoy)
  for (const message of answerOf(stream)) {
    envoy.say(message)
    await answered(envoy)
  }
  envoy.call.end()
  if ((await envoy.next()) !== null) throw new Error("a message too many")
}

/** Past the word that it is held. */
async function answered(envoy: EnvoyStream): Promise<void> {
  const message = await envoy.next()
  if (message === null) throw new Error("the stream ended early")
  if (message.immediateResponse !== undefined) throw new Error(message.immediateResponse.body.toString())
  if (message.overrideMessageTimeout !== undefined) await answered(envoy)
}

/** As an engine answers: a chunk a token, or all at once. */
function answerOf(stream: boolean): ProcessingRequest[] {
  const type = stream ? "text/event-stream" : "application/json"
  const headers = headerMap({ ":status": "200", "content-type": type })
  const texts = stream ? [...Array.from({ length: OUTPUT_TOKENS }, () => chunk()), lastChunk()] : [whole()]
  const bodies = texts.map((text, i) => ({
    responseBody: { body: Buffer.from(text), endOfStream: i === texts.length - 1 },
  }))
  return [{ responseHeaders: { headers } }, ...bodies]
}

const usage = { prompt_tokens: PROMPT_TOKENS, completion_tokens: OUTPUT_TOKENS }
const choices = [{ index: 0, delta: { content: " word" }, text: " word" }]
const chunk = () => `data: ${JSON.stringify({ choices })}\n\n`
const lastChunk = () => `data: ${JSON.stringify({ choices: [], usage })}\n\ndata: [DONE]\n\n`
const whole = () => JSON.stringify({ choices, usage })
