/** Which backends a gateway can be before. */
import { expect, test } from "vitest"
import { parseInlineBackend } from "../config/backends.ts"
import { gatewayOf } from "./serve-gateway.ts"
import type { ServeOptions } from "./serve-options.ts"

const parts = (backend: string, host: string, port: number) =>
  gatewayOf({ backend: [parseInlineBackend(backend, "--backend")], host, port } as ServeOptions, [])

test.each([
  ["http://localhost:8080", "127.0.0.1", 8080],
  ["llama-server=http://127.0.0.1:8080", "127.0.0.1", 8080],
  ["http://127.0.0.1:8080/v1", "0.0.0.0", 8080],
  ["http://[::1]:8080", "::", 8080],
  ["http://10.0.0.7", "10.0.0.7", 80],
])("%s is no backend of a gateway on %s port %d: it is that itself", (backend, host, port) => {
  expect(() => parts(backend, host, port)).toThrow(/would be this server itself, which listens on port/)
})

test.each([
  ["http://localhost:8081", "127.0.0.1", 8080],
  ["http://127.0.0.1:8080", "10.0.0.7", 8080],
  ["http://127.0.0.1:8080", "127.0.0.1", 0],
  ["https://10.0.0.7", "10.0.0.7", 80],
  ["http://gpu-1:8080", "0.0.0.0", 8080],
])("%s is a backend of a gateway on %s port %d", (backend, host, port) => {
  expect(parts(backend, host, port)!.backends).toHaveLength(1)
})
