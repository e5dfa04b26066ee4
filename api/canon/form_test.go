package canon

import (
	"slices"
	"testing"
)

// rules has an object, its three forms, and the forms that are worth trying on
// a request with the object as its payload.
var rules = []struct {
	name, object           string
	skipping, keeping, tit string
	forms                  []Form
}{
	// Skipped by every form.
	{"empty object", `{}`, "", "", "", []Form{Skipping}},
	{"null", `{"a":null}`, "", "", "", []Form{Skipping}},
	{"empty array", `{"a":[]}`, "", "", "", []Form{Skipping}},
	{"array of an empty string", `{"a":[""]}`, "", "", "", []Form{Skipping}},
	{"array of null", `{"a":[null]}`, "", "", "", []Form{Skipping}},
	{"array of an empty array", `{"a":[[]]}`, "", "", "", []Form{Skipping}},
	{"array of a skipped array", `{"a":[[[""]]]}`, "", "", "", []Form{Skipping}},

	// Skipped by Skipping only.
	{"empty string", `{"a":""}`, "", "a=", "a=", []Form{Skipping, Keeping}},
	{"zero", `{"a":0}`, "", "a=0", "a=0", []Form{Skipping, Keeping}},
	{"negative zero", `{"a":-0}`, "", "a=0", "a=0", []Form{Skipping, Keeping}},
	{"zero with fraction", `{"a":-0.00e+5}`, "", "a=0", "a=0", []Form{Skipping, Keeping}},
	{"too small to be a double", `{"a":1e-999}`, "", "a=0", "a=0", []Form{Skipping, Keeping}},
	{"false", `{"a":false}`, "", "a=false", "a=False", []Form{Skipping, Keeping, KeepingTitle}},
	{"empty name and value", `{"":""}`, "", "=", "=", []Form{Skipping, Keeping}},

	// Skipped by none.
	{"text of zero", `{"a":"0"}`, "a=0", "a=0", "a=0", []Form{Skipping}},
	{"text of false", `{"a":"false"}`, "a=false", "a=false", "a=false", []Form{Skipping}},
	{"space", `{"a":" "}`, "a= ", "a= ", "a= ", []Form{Skipping}},
	{"tab", `{"a":"\t"}`, "a=\t", "a=\t", "a=\t", []Form{Skipping}},
	{"NUL", `{"a":"\u0000"}`, "a=\x00", "a=\x00", "a=\x00", []Form{Skipping}},
	{"true", `{"a":true}`, "a=true", "a=true", "a=True", []Form{Skipping, KeepingTitle}},
	{"object in object", `{"a":{}}`, "a=", "a=", "a=", []Form{Skipping}},
	{"array of zero", `{"a":[0]}`, "a=", "a=0=0", "a=0=0", []Form{Skipping, Keeping}},
	{"array of false", `{"a":[false]}`, "a=", "a=0=false", "a=0=False", []Form{Skipping, Keeping, KeepingTitle}},
	{"array of a string", `{"a":["x"]}`, "a=0=x", "a=0=x", "a=0=x", []Form{Skipping}},
	{"array of an object", `{"a":[{}]}`, "a=0=", "a=0=", "a=0=", []Form{Skipping}},
	{"array of two empty strings", `{"a":["",""]}`, "a=", "a=0=&1=", "a=0=&1=", []Form{Skipping, Keeping}},
	{"array of two nulls", `{"a":[null,null]}`, "a=", "a=", "a=", []Form{Skipping}},
	{"array of an array of two", `{"a":[[[],[]]]}`, "a=0=", "a=0=", "a=0=", []Form{Skipping}},
	{"object of skipped members", `{"a":{"b":"","c":null,"d":{"e":0}}}`, "a=d=", "a=b=&d=e=0", "a=b=&d=e=0", []Form{Skipping, Keeping}},
	{"first member skipped", `{"a":"","b":"x"}`, "b=x", "a=&b=x", "a=&b=x", []Form{Skipping, Keeping}},
	{"last member skipped", `{"a":"x","b":""}`, "a=x", "a=x&b=", "a=x&b=", []Form{Skipping, Keeping}},

	// Order.
	{"ASCII order", `{"a":1,"_":2,"B":3,"b":4,"A":5,"aa":6,"":7}`, "=7&A=5&B=3&_=2&a=1&aa=6&b=4", "=7&A=5&B=3&_=2&a=1&aa=6&b=4", "=7&A=5&B=3&_=2&a=1&aa=6&b=4", []Form{Skipping}},
	{"digits as names", `{"10":"a","9":"b","1":"c"}`, "1=c&10=a&9=b", "1=c&10=a&9=b", "1=c&10=a&9=b", []Form{Skipping}},
	{"astral before U+E000", "{\"\uffff\":1,\"\U0001f600\":2,\"\ue000\":3,\"\ud7ff\":4}", "\ud7ff=4&\U0001f600=2&\ue000=3&\uffff=1", "\ud7ff=4&\U0001f600=2&\ue000=3&\uffff=1", "\ud7ff=4&\U0001f600=2&\ue000=3&\uffff=1", []Form{Skipping}},
	{"duplicate", `{"a":"first","b":"x","a":"last"}`, "a=last&b=x", "a=last&b=x", "a=last&b=x", []Form{Skipping}},
	{"duplicate that ends empty", `{"a":"first","a":null}`, "", "", "", []Form{Skipping}},
	{"duplicate by escape", `{"a":1,"\u0061":2}`, "a=2", "a=2", "a=2", []Form{Skipping}},
	{"array order is textual", `{"a":[1,2,3,4,5,6,7,8,9,10,11,12]}`,
		"a=0=1&1=2&10=11&11=12&2=3&3=4&4=5&5=6&6=7&7=8&8=9&9=10",
		"a=0=1&1=2&10=11&11=12&2=3&3=4&4=5&5=6&6=7&7=8&8=9&9=10",
		"a=0=1&1=2&10=11&11=12&2=3&3=4&4=5&5=6&6=7&7=8&8=9&9=10", []Form{Skipping}},
	{"array keeps indexes", `{"a":[null,"x",[],"y"]}`, "a=1=x&3=y", "a=1=x&3=y", "a=1=x&3=y", []Form{Skipping}},

	// Text and nesting.
	{"nothing is escaped", `{"a&=":"<&=+%20\"\\\r\n\u000b\/>"}`, "a&==<&=+%20\"\\\r\n\v/>", "a&==<&=+%20\"\\\r\n\v/>", "a&==<&=+%20\"\\\r\n\v/>", []Form{Skipping}},
	{"surrogate pair", `{"a":"\ud83d\ude00"}`, "a=\U0001f600", "a=\U0001f600", "a=\U0001f600", []Form{Skipping}},
	{"lone surrogates", `{"a":"\ud83dx\ude00\ud83d"}`, "a=\ufffdx\ufffd\ufffd", "a=\ufffdx\ufffd\ufffd", "a=\ufffdx\ufffd\ufffd", []Form{Skipping}},
	{"nesting", `{"b":{"d":{"f":1},"c":[{"e":"x"}]},"a":2}`, "a=2&b=c=0=e=x&d=f=1", "a=2&b=c=0=e=x&d=f=1", "a=2&b=c=0=e=x&d=f=1", []Form{Skipping}},
	{"mixed", `{"t":true,"f":false,"z":0,"n":null}`, "t=true", "f=false&t=true&z=0", "f=False&t=True&z=0", []Form{Skipping, Keeping, KeepingTitle}},
}

func TestRules(t *testing.T) {
	for _, tt := range rules {
		t.Run(tt.name, func(t *testing.T) {
			object := mustParse(t, tt.object)
			request := mustParse(t, `{"timestamp":"9","payload":`+tt.object+`,"appid":"a"}`)
			for form, want := range map[Form]string{Skipping: tt.skipping, Keeping: tt.keeping, KeepingTitle: tt.tit, 0: tt.skipping, 99: tt.skipping} {
				if got := object.AppendCanonicalObject([]byte("&"), form); string(got) != "&"+want {
					t.Errorf("AppendCanonicalObject, form %d: got %q, want %q", form, got, "&"+want)
				}
				want = "&appid=a&payload=" + want + "&timestamp=9"
				if got := request.AppendCanonical([]byte("&"), form); string(got) != want {
					t.Errorf("AppendCanonical, form %d: got %q, want %q", form, got, want)
				}
			}
			if got := slices.Collect(request.Forms()); !slices.Equal(got, tt.forms) {
				t.Errorf("Forms: got %v, want %v", got, tt.forms)
			}
		})
	}
}

// The numbers of section 6.1.6.1.20 of ECMA-262, Number::toString.
var numbers = []struct{ name, json, want string }{
	{"integer", "48", "48"},
	{"negative", "-48", "-48"},
	{"fraction", "1.5", "1.5"},
	{"whole fraction", "1.0", "1"},
	{"whole exponent", "4.8e1", "48"},
	{"fraction with zeros", "1.500", "1.5"},
	{"fifteen digits", "999999999999999", "999999999999999"},
	{"sixteen digits", "9007199254740991", "9007199254740991"},
	{"above the safe integers", "9007199254740993", "9007199254740992"},
	{"unsigned 64 bit", "12345678901234567890", "12345678901234567000"},
	{"below 1e21", "999999999999999900000", "999999999999999900000"},
	{"rounds up to 1e21", "999999999999999999999", "1e+21"},
	{"1e20", "1e20", "100000000000000000000"},
	{"1e21", "1e21", "1e+21"},
	{"1e21 in full", "1000000000000000000000", "1e+21"},
	{"negative 1e21", "-1E+21", "-1e+21"},
	{"with digits above 1e21", "1234567890123456789012", "1.2345678901234568e+21"},
	{"1e-6", "0.000001", "0.000001"},
	{"1e-7", "0.0000001", "1e-7"},
	{"negative 1.5e-9", "-0.0000000015", "-1.5e-9"},
	{"1e-10", "1e-10", "1e-10"},
	{"tenths", "0.1", "0.1"},
	{"sum of tenths", "0.30000000000000004", "0.30000000000000004"},
	{"largest", "1.7976931348623157e308", "1.7976931348623157e+308"},
	{"rounds down to the largest", "1.7976931348623158e308", "1.7976931348623157e+308"},
	{"smallest", "4.9e-324", "5e-324"},
	{"hundred digits of exponent", "1e-0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001", "0.1"},
}

func TestNumbers(t *testing.T) {
	for _, tt := range numbers {
		t.Run(tt.name, func(t *testing.T) {
			v := mustParse(t, `{"a":`+tt.json+`}`)
			if got := v.AppendCanonicalObject(nil, Skipping); string(got) != "a="+tt.want {
				t.Errorf("AppendCanonicalObject: got %q, want %q", got, "a="+tt.want)
			}
		})
	}
}

func TestEnvelope(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"nothing covered", `{"sign":"x","Payload":{"a":1},"action":"y"}`, ""},
		{"null and empty members", `{"appid":"a","nonce":null,"payload":null,"timestamp":""}`, "appid=a"},
		{"all four and more", `{"z":1,"timestamp":"t","payload":{"sign":"s"},"nonce":"n","b":2,"appid":"a","sign":"s"}`,
			"appid=a&nonce=n&payload=sign=s&timestamp=t"},
		{"types are not checked here", `{"appid":1,"nonce":[1,2],"payload":"p","timestamp":1700000000000}`,
			"appid=1&nonce=0=1&1=2&payload=p&timestamp=1700000000000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := mustParse(t, tt.body).AppendCanonical(nil, Skipping); string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	request := mustParse(t, `{"appid":"a","payload":"p"}`)
	for _, v := range []Value{{}, request.Get("appid"), request.Get("none")} {
		if got := v.AppendCanonical(nil, Keeping); len(got) != 0 {
			t.Errorf("AppendCanonical of %v: got %q, want nothing", v, got)
		}
		if got := v.AppendCanonicalObject(nil, Keeping); len(got) != 0 {
			t.Errorf("AppendCanonicalObject of %v: got %q, want nothing", v, got)
		}
		if got := v.Covered(Keeping); got.Kind() != Absent {
			t.Errorf("Covered of %v: got %v, want absent", v, got)
		}
	}
}

// An early end of the loop over the forms is how a match is reported.
func TestFormsStops(t *testing.T) {
	v := mustParse(t, `{"payload":{"a":false}}`)
	for stop := Skipping; stop <= KeepingTitle; stop++ {
		var last Form
		for last = range v.Forms() {
			if last == stop {
				break
			}
		}
		if last != stop {
			t.Errorf("got %d as the last form, want %d", last, stop)
		}
	}
}

func TestCovered(t *testing.T) {
	tests := []struct {
		name, body string
		form       Form
		want       string // JSON of the same tree
	}{
		{"all shown", `{"appid":"a","payload":{"k":"v","n":[1]}}`, Skipping, `{"appid":"a","payload":{"k":"v","n":[1]}}`},
		{"outside of the four", `{"appid":"a","sign":"s","x":1,"payload":{"sign":"s"}}`, Keeping, `{"appid":"a","payload":{"sign":"s"}}`},
		{"empty values, Skipping", `{"nonce":"","payload":{"aad":"","n":0,"f":false,"k":"v","z":null}}`, Skipping, `{"payload":{"k":"v"}}`},
		{"empty values, Keeping", `{"nonce":"","payload":{"aad":"","n":0,"f":false,"k":"v","z":null}}`, Keeping,
			`{"nonce":"","payload":{"aad":"","n":0,"f":false,"k":"v"}}`},
		{"empty values, KeepingTitle", `{"nonce":"","payload":{"aad":"","n":0,"f":false,"k":"v","z":null}}`, KeepingTitle,
			`{"nonce":"","payload":{"aad":"","n":0,"f":false,"k":"v"}}`},
		{"payload with nothing left", `{"payload":{"aad":""}}`, Skipping, `{"payload":{}}`},
		{"deep", `{"payload":{"a":{"b":{"c":0,"d":1}}}}`, Skipping, `{"payload":{"a":{"b":{"d":1}}}}`},
		{"skipped arrays", `{"payload":{"a":[""],"b":[[]],"c":[]}}`, Keeping, `{"payload":{}}`},
		{"array keeps indexes", `{"payload":{"a":["",0,"x",false,{"b":""}]}}`, Skipping, `{"payload":{"a":[null,null,"x",null,{}]}}`},
		{"array is cut off", `{"payload":{"a":["x","",0,null]}}`, Skipping, `{"payload":{"a":["x"]}}`},
		{"array with nothing left", `{"payload":{"a":[0],"b":["",""]}}`, Skipping, `{"payload":{"a":[],"b":[]}}`},
		{"array, Keeping", `{"payload":{"a":["x","",0,null]}}`, Keeping, `{"payload":{"a":["x","",0]}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := mustParse(t, tt.body)
			before := v.AppendCanonical(nil, KeepingTitle)
			if got, want := show(v.Covered(tt.form)), show(mustParse(t, tt.want)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if after := v.AppendCanonical(nil, KeepingTitle); string(after) != string(before) {
				t.Errorf("Covered changed its receiver from %q to %q", before, after)
			}
		})
	}
}

func TestWithout(t *testing.T) {
	const body = `{"result":true,"nonce":"bm9uY2U=","tcbStatus":0,"sign":"s","mr_signer":"ab"}`
	v := mustParse(t, body)
	const want = "mr_signer=ab&nonce=bm9uY2U=&result=true"
	if got := v.Without("sign").AppendCanonicalObject(nil, Skipping); string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := v.Get("sign").Text(); got != "s" {
		t.Errorf("Without changed its receiver: sign is %q", got)
	}
	for _, name := range []string{"Sign", "", "signature"} {
		if got := v.Without(name); show(got) != show(v) {
			t.Errorf("Without(%q): got %s, want no change", name, show(got))
		}
	}
	if got := v.Get("sign").Without("sign"); got.Text() != "s" {
		t.Errorf("Without of a string: got %s", show(got))
	}
}
