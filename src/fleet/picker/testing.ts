/** A picker of tests' own, and what they read in its messages. */
import { afterEach } from "vitest"
import { defaultSloClasses } from "../../config/slo-classes.ts"
import { bodyMessage, EnvoyPart, type EnvoyStream, headersMessage } from "./envoy-part.ts"
import { LeastLoaded } from "./least-loaded.ts"
import { EndpointPicker, type PickerOptions } from "./run.ts"
import type { ProcessingRequest, ProcessingResponse, Struct } from "./wire.ts"

export const A = "127.0.0.1:8001"
export const B = "127.0.0.1:8002"

/** How much is held, and for how long. */
export const FLOW = { mostHeld: 4, mostHeldBytes: 1 << 22, longestHoldUs: 60e6, late: "send" } as const

export function pickerOptions(changes: Partial<PickerOptions> = {}): PickerOptions {
  return {
    ...{ host: "127.0.0.1", port: 0, metricsPort: 0, tls: null, bodyLimit: 1 << 20, named: 1 },
    endpoints: [
      { host: "127.0.0.1", port: 8001 },
      { host: "127.0.0.1", port: 8002 },
    ],
    endpointsFile: null,
    classes: defaultSloClasses(),
    flow: FLOW,
    rewrite: { priority: "off", sloArguments: false },
    chooser: new LeastLoaded(1000),
    warn: () => {},
    ...changes,
  }
}

export class TestPicker {
  readonly picker: EndpointPicker
  readonly port: number
  readonly metricsPort: number
  readonly #envoy: EnvoyPart

  private constructor(picker: EndpointPicker, port: number, metricsPort: number) {
    this.picker = picker
    this.port = port
    this.metricsPort = metricsPort
    this.#envoy = new EnvoyPart(`127.0.0.1:${port}`)
  }

  static async start(changes: Partial<PickerOptions> = {}): Promise<TestPicker> {
    const picker = new EndpointPicker(pickerOptions(changes))
    const { port, metricsPort } = await picker.start()
    return new TestPicker(picker, port, metricsPort ?? 0)
  }

  open(): EnvoyStream {
    return this.#envoy.open()
  }

  async metrics(): Promise<string> {
    return (await fetch(`http://127.0.0.1:${this.metricsPort}/metrics`)).text()
  }

  /** What a gauge or counter of its page is at. */
  async gauge(name: string): Promise<number> {
    return Number(new RegExp(`^slos_serve_picker_${name} (\\S+)$`, "m").exec(await this.metrics())?.[1])
  }

  async close(): Promise<void> {
    this.#envoy.close()
    await this.picker.stop(0)
  }
}

/** Starts pickers that end with the test. To be called where the tests of a file stand. */
export function pickersOfTests(): (changes?: Partial<PickerOptions>) => Promise<TestPicker> {
  const open: TestPicker[] = []
  afterEach(async () => {
    for (const each of open.splice(0)) await each.close()
  })
  return async (changes) => {
    const started = await TestPicker.start(changes)
    open.push(started)
    return started
  }
}

export const PROMPT = JSON.stringify({
  ...{ model: "m", max_tokens: 8 },
  messages: [{ role: "user", content: "Hello" }],
})
export const CHAT = { ":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json" }

export const subset = (...endpoints: string[]): Partial<ProcessingRequest> => {
  const values = endpoints.map((stringValue) => ({ stringValue }))
  const hint: Struct = { fields: { "x-gateway-destination-endpoint-subset": { listValue: { values } } } }
  return { metadataContext: { filterMetadata: { "envoy.lb.subset_hint": hint } } }
}

/** Headers that a message sets. */
export function headersIn(message: ProcessingResponse | null): Record<string, string> {
  const part = message?.requestHeaders ?? message?.requestBody ?? message?.responseHeaders
  const mutation = message?.immediateResponse?.headers ?? part?.response?.headerMutation
  const entries = (mutation?.setHeaders ?? []).map(({ header }) => [header.key, header.rawValue?.toString()])
  return Object.fromEntries(entries)
}

export function metadataIn(message: ProcessingResponse | null): string | undefined {
  return message?.dynamicMetadata?.fields?.["envoy.lb"]?.structValue?.fields?.[
    "x-gateway-destination-endpoint"
  ]?.stringValue
}

export function bodyIn(message: ProcessingResponse | null): { body: string; endOfStream: boolean } {
  const part = message?.requestBody ?? message?.responseBody
  const mutation = part?.response?.bodyMutation
  if (mutation === undefined) return { body: "", endOfStream: false }
  if ("body" in mutation) return { body: mutation.body.toString(), endOfStream: true }
  const { body, endOfStream } = mutation.streamedResponse
  return { body: (body ?? Buffer.alloc(0)).toString(), endOfStream: endOfStream ?? false }
}

/** Sends a chat request in full duplex, and reads where it goes. */
export async function chat(stream: EnvoyStream, headers: Record<string, string> = {}, body = PROMPT) {
  stream.say(headersMessage({ ...CHAT, ...headers })).say(bodyMessage(body))
  const first = await stream.next()
  return { first, endpoint: metadataIn(first) }
}

/** Of a stream that is refused next. */
export async function refusal(stream: EnvoyStream) {
  const message = await stream.next()
  const response = message?.immediateResponse
  const status = response?.status.code
  const error = response === undefined ? null : JSON.parse(response.body.toString()).error
  return { status, error, headers: headersIn(message), over: (await stream.next()) === null }
}
