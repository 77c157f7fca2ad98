/** Envoy's external processing as it crosses the wire: the messages that an endpoint picker reads and writes, and the gRPC
 * service they belong to (ext-proc.proto). */
import { join } from "node:path"
import type { ServiceDefinition } from "@grpc/grpc-js"
import { loadSync } from "@grpc/proto-loader"

/** How a body is sent to the picker: ProcessingMode.BodySendMode. */
export const BODY_MODE = {
  none: 0,
  streamed: 1,
  buffered: 2,
  bufferedPartial: 3,
  fullDuplex: 4,
  grpc: 5,
} as const

export type BodyMode = (typeof BODY_MODE)[keyof typeof BODY_MODE]

/** HeaderValueOption.HeaderAppendAction: a header that the client sent is replaced, not repeated. */
export const OVERWRITE = 2

export interface HeaderValue {
  key?: string
  value?: string
  rawValue?: Buffer
}

export interface HttpHeaders {
  headers?: { headers?: HeaderValue[] }
  endOfStream?: boolean
}

export interface HttpBody {
  body?: Buffer
  endOfStream?: boolean
}

/** google.protobuf.Struct and its values. */
export interface Struct {
  fields?: Record<string, StructValue>
}

export interface StructValue {
  stringValue?: string
  structValue?: Struct
  listValue?: { values?: StructValue[] }
}

/** From the data plane. `request` names the one message that is there. */
export interface ProcessingRequest {
  request?: keyof RequestParts
  requestHeaders?: HttpHeaders
  requestBody?: HttpBody
  requestTrailers?: object
  responseHeaders?: HttpHeaders
  responseBody?: HttpBody
  responseTrailers?: object
  metadataContext?: { filterMetadata?: Record<string, Struct> }
  observabilityMode?: boolean
  /** Only in the first message of a stream. */
  protocolConfig?: { requestBodyMode?: number; responseBodyMode?: number }
}

type RequestParts = Pick<
  ProcessingRequest,
  | "requestHeaders"
  | "requestBody"
  | "requestTrailers"
  | "responseHeaders"
  | "responseBody"
  | "responseTrailers"
>

export interface HeaderMutation {
  setHeaders: { header: HeaderValue; appendAction: number }[]
}

export interface CommonResponse {
  headerMutation?: HeaderMutation
  bodyMutation?: { body: Buffer } | { streamedResponse: { body: Buffer; endOfStream: boolean } }
  clearRouteCache?: boolean
}

/** To the data plane: one of these parts. */
export interface ProcessingResponse {
  requestHeaders?: { response: CommonResponse }
  requestBody?: { response: CommonResponse }
  requestTrailers?: object
  responseHeaders?: { response: CommonResponse }
  responseBody?: { response: CommonResponse }
  responseTrailers?: object
  immediateResponse?: { status: { code: number }; headers: HeaderMutation; body: Buffer; details: string }
  dynamicMetadata?: Struct
  overrideMessageTimeout?: { seconds: number }
}

export const SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

/** The gRPC service, read from the .proto beside this file. */
export function loadService(): ServiceDefinition {
  const path = join(import.meta.dirname, "ext-proc.proto")
  const definition = loadSync(path, { longs: Number, enums: Number, defaults: false, oneofs: true })
  return definition[SERVICE] as ServiceDefinition
}
