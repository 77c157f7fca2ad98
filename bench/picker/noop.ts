/** What any external processor costs: answers every message at once and changes nothing. `noop.ts <port>` */
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js"
import { bodyPieces } from "../../src/fleet/picker/messages.ts"
import { bearResets } from "../../src/fleet/picker/server.ts"
import { loadService, type ProcessingRequest, type ProcessingResponse } from "../../src/fleet/picker/wire.ts"

const EMPTY = Buffer.alloc(0)
const server = new Server()
bearResets(server)

function serve(call: ServerDuplexStream<ProcessingRequest, ProcessingResponse>): void {
  let duplex = { request: true, response: true }
  call.on("data", (message: ProcessingRequest) => {
    const { protocolConfig: modes, requestBody, responseBody } = message
    if (modes !== undefined)
      duplex = { request: modes.requestBodyMode === 4, response: modes.responseBodyMode === 4 }
    const part = message.request!
    const piece = requestBody ?? responseBody
    const streamed = requestBody !== undefined ? duplex.request : duplex.response
    if (part.endsWith("Trailers")) call.write({ [part]: {} })
    else if (piece === undefined || !streamed) call.write({ [part]: { response: {} } })
    else
      for (const response of bodyPieces(piece.body ?? EMPTY, piece.endOfStream ?? false))
        call.write({ [part]: { response } })
  })
  call.on("end", () => call.end())
  call.on("error", () => {})
}

server.addService(loadService(), { process: serve } as unknown as UntypedServiceImplementation)
server.bindAsync(`127.0.0.1:${process.argv[2]}`, ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error
  console.log(port)
})
