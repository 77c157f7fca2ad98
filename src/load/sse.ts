/** Incremental server-sent events: feeds on chunks cut anywhere, gives the data of each event. */

export class SseParser {
  private rest = ""
  private readonly decoder = new TextDecoder()

  /** The data of the events that this chunk completes. */
  push(chunk: Uint8Array): string[] {
    this.rest += this.decoder.decode(chunk, { stream: true })
    const events: string[] = []
    for (;;) {
      const match = /\r?\n\r?\n/.exec(this.rest)
      if (match === null) return events
      const data = dataOf(this.rest.slice(0, match.index))
      this.rest = this.rest.slice(match.index + match[0].length)
      if (data !== "") events.push(data)
    }
  }
}

function dataOf(event: string): string {
  let data = ""
  for (const line of event.split(/\r?\n/)) {
    // llama-server reports errors in a field of its own.
    const field = line.startsWith("data:") ? 5 : line.startsWith("error:") ? 6 : 0
    if (field > 0) data += (data === "" ? "" : "\n") + line.slice(field).trimStart()
  }
  return data
}
