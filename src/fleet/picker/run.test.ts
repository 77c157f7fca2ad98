/** A picker from its start to the word that it is ready. */
import { expect, it } from "vitest"
import { freePorts } from "../../free-port.ts"
import { bodyMessage, EnvoyPart, headersMessage } from "./envoy-part.ts"
import { EndpointPicker } from "./run.ts"
import { A, B, CHAT, metadataIn, pickerOptions } from "./testing.ts"

it("serves while it warms up, and is ready after it", async () => {
  const [port, metricsPort] = (await freePorts(2)) as [number, number]
  const picker = new EndpointPicker(pickerOptions({ port, metricsPort }))
  const health = async () => (await fetch(`http://127.0.0.1:${metricsPort}/health`)).status
  let begun = () => {}
  const listening = new Promise<void>((resolve) => (begun = resolve))
  let warm = () => {}
  const started = picker.start(() => {
    begun()
    return new Promise<void>((resolve) => (warm = resolve))
  })
  await listening
  const envoy = new EnvoyPart(`127.0.0.1:${port}`)
  const stream = envoy.open().say(headersMessage(CHAT)).say(bodyMessage('{"prompt":"Hello"}'))
  expect([A, B]).toContain(metadataIn(await stream.next()))
  expect(await health()).toBe(503)
  warm()
  await started
  expect(await health()).toBe(200)
  stream.call.cancel()
  envoy.close()
  await picker.stop(0)
})
