package api

// Actions lists all actions, each once.
func Actions() []string {
	return []string{
		CreateKey, Encrypt, Decrypt, GenerateDataKey, GenerateDataKeyWithoutPlaintext, ExportDataKey, ReEncrypt,
		AsymmetricEncrypt, AsymmetricDecrypt, Sign, Verify, GetPublicKey,
		BatchEncrypt, BatchDecrypt, BatchReEncrypt, BatchSign, BatchVerify,
		GetParametersForImport, ImportKeyMaterial,
		ListKey, EnableKey, DisableKey, DeleteKey, DeleteAllKey,
		DescribeKey, UpdateKey, RotateKey, ListKeyVersions, EnableKeyVersion, DisableKeyVersion,
		ScheduleKeyVersionDeletion, ScheduleKeyDeletion, CancelKeyDeletion,
		CreateSecret, UpdateSecretDesc, PutSecretValue, GetSecretValue, ListSecrets, ListSecretVersionIds,
		DescribeSecret, DeleteSecret, RestoreSecret,
		GenerateQuote, VerifyQuote, UploadQuotePolicy, GetQuotePolicy,
		GetEvidence, GetVersion, Enroll,
	}
}
