package relay

// Texts of the replies that come from the host because no core was asked or
// none has answered. They carry no reply signature.
const (
	busyText     = `{"code":429,"message":"Too many requests.","result":{}}`
	internalText = `{"code":500,"message":"Server internal error, please contact the administrator.","result":{}}`
	databaseText = `{"code":400,"message":"database error","result":{}}`
)

// Busy is the reply to a request for which there is no room.
func Busy() Reply { return Reply{Code: 429, Body: []byte(busyText)} }

// Internal is the reply to a request that failed at the host.
func Internal() Reply { return Reply{Code: 500, Body: []byte(internalText)} }

// noDatabase is the reply to a change whose tenant could not be looked up, which
// has certainly not been made.
func noDatabase() Reply { return Reply{Code: 400, Body: []byte(databaseText)} }
