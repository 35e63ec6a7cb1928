/** Whom the nodes of a test let in. */
export const NODE_USER = "AKIATEST000000000000";
export const NODE_SECRET = "a secret of the test";
