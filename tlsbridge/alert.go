package tlsbridge

// Alerts for those who are turned away before a handshake, RFC 8446, section 6.
const (
	AlertHandshakeFailure uint8 = 40
	AlertAccessDenied     uint8 = 49 // the source may not use this frontend
	AlertDecodeError      uint8 = 50 // the ClientHello is malformed
	AlertProtocolVersion  uint8 = 70
	AlertInternalError    uint8 = 80 // no backend, or no resources
	AlertUnrecognizedName uint8 = 112
	AlertNoALPN           uint8 = 120 // none of the client's application protocols
)

// AppendAlert appends a record with a fatal alert, as it is before any keys are agreed on.
func AppendAlert(out []byte, alert uint8) []byte {
	const fatal = 2
	return append(out, recordAlert, 3, 3, 0, 2, fatal, alert)
}
