/** Plays Envoy's part against a picker: a client of the gRPC service that sends the pieces of a request as Envoy does. */
import { type ClientDuplexStream, credentials, makeGenericClientConstructor } from "@grpc/grpc-js"
import { defaultSloClasses } from "../../config/slo-classes.ts"
import { LeastLoaded } from "./least-loaded.ts"
import { EndpointPicker, type PickerOptions } from "./run.ts"
import { loadService, type ProcessingRequest, type ProcessingResponse, type Struct } from "./wire.ts"

export const A = "127.0.0.1:8001"
export const B = "127.0.0.1:8002"

export function pickerOptions(changes: Partial<PickerOptions> = {}): PickerOptions {
  return {
    ...{ host: "127.0.0.1", port: 0, metricsPort: 0, tls: null, bodyLimit: 1 << 20, named: 1 },
    endpoints: [
      { host: "127.0.0.1", port: 8001 },
      { host: "127.0.0.1", port: 8002 },
    ],
    endpointsFile: null,
    classes: defaultSloClasses(),
    flow: { mostHeld: 4, mostHeldBytes: 1 << 22, longestHoldUs: 60e6, late: "send" },
    rewrite: { priority: "off", sloArguments: false },
    chooser: new LeastLoaded(1000),
    warn: () => {},
    ...changes,
  }
}

/** One HTTP request of Envoy's. */
export class EnvoyStream {
  readonly call: ClientDuplexStream<ProcessingRequest, ProcessingResponse>
  readonly #told: ProcessingResponse[] = []
  #waiting: (() => void) | null = null
  #over = false

  constructor(call: ClientDuplexStream<ProcessingRequest, ProcessingResponse>) {
    this.call = call
    const wake = () => this.#waiting?.()
    call.on("data", (message: ProcessingResponse) => {
      this.#told.push(message)
      wake()
    })
    for (const event of ["end", "error"] as const)
      call.on(event, () => {
        this.#over = true
        wake()
      })
  }

  say(message: ProcessingRequest | Record<string, unknown>): this {
    this.call.write(message as ProcessingRequest)
    return this
  }

  /** The next message; null when the stream is over. */
  async next(): Promise<ProcessingResponse | null> {
    while (this.#told.length === 0 && !this.#over)
      await new Promise<void>((resolve) => (this.#waiting = resolve))
    return this.#told.shift() ?? null
  }

  /** What has come so far. */
  get pending(): number {
    return this.#told.length
  }
}

export class TestPicker {
  readonly picker: EndpointPicker
  readonly port: number
  readonly metricsPort: number
  readonly #client: InstanceType<ReturnType<typeof makeGenericClientConstructor>>

  private constructor(picker: EndpointPicker, port: number, metricsPort: number) {
    this.picker = picker
    this.port = port
    this.metricsPort = metricsPort
    const Client = makeGenericClientConstructor(loadService(), "ExternalProcessor")
    this.#client = new Client(`127.0.0.1:${port}`, credentials.createInsecure())
  }

  static async start(changes: Partial<PickerOptions> = {}): Promise<TestPicker> {
    const picker = new EndpointPicker(pickerOptions(changes))
    const { port, metricsPort } = await picker.start()
    return new TestPicker(picker, port, metricsPort ?? 0)
  }

  open(): EnvoyStream {
    const process = this.#client.process!.bind(this.#client) as unknown as () => EnvoyStream["call"]
    return new EnvoyStream(process())
  }

  async metrics(): Promise<string> {
    return (await fetch(`http://127.0.0.1:${this.metricsPort}/metrics`)).text()
  }

  async close(): Promise<void> {
    this.#client.close()
    await this.picker.stop(0)
  }
}

export const CHAT = { ":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json" }

export function headersMessage(
  headers: Record<string, string>,
  more: Partial<ProcessingRequest> & { endOfStream?: boolean; mode?: number; responseMode?: number } = {},
): ProcessingRequest {
  const { endOfStream = false, mode, responseMode, ...rest } = more
  const modes = mode === undefined ? {} : { requestBodyMode: mode, responseBodyMode: responseMode ?? 0 }
  return {
    requestHeaders: { headers: headerMap(headers), endOfStream },
    ...(mode !== undefined && { protocolConfig: modes }),
    ...rest,
  }
}

export const headerMap = (headers: Record<string, string>) => ({
  headers: Object.entries(headers).map(([key, value]) => ({ key, rawValue: Buffer.from(value) })),
})

export const bodyMessage = (body: string, endOfStream = true): ProcessingRequest => ({
  requestBody: { body: Buffer.from(body), endOfStream },
})

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
