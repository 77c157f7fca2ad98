/** How an HTTP connection becomes one of the wire protocol. */

export const UPGRADE_PATH = "/v1/replica"
export const UPGRADE_PROTOCOL = "slos-serve-wire"
