using k8s;
using Tensormesh.Operator.Admission;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The operator's executable, with its own rights, and the Secret of the webhook's certificates.</summary>
public sealed class WebhookSecretTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task Certificates_that_somebody_damaged_are_made_anew_and_the_webhook_is_asked_again()
    {
        var kept = await Client.CoreV1.ReadNamespacedSecretAsync(WebhookSecret.Name, TestKit.Installation.Namespace, cancellationToken: Ended);
        var before = WebhookCertificates.FromSecret(kept.Data)!;
        kept.Data["tls.crt"] = "not a certificate"u8.ToArray();
        await Client.CoreV1.ReplaceNamespacedSecretAsync(kept, WebhookSecret.Name, TestKit.Installation.Namespace, cancellationToken: Ended);

        var after = await Eventually.SeeAsync(
            async () => WebhookCertificates.FromSecret((await Client.CoreV1.ReadNamespacedSecretAsync(WebhookSecret.Name, TestKit.Installation.Namespace, cancellationToken: Ended)).Data),
            held => held is not null);
        Assert.NotEqual(before.Server.Thumbprint, after!.Server.Thumbprint);
        // An account without money is denied by the webhook, and by nobody else at the time of an apply.
        var team = await OpenTeamAsync("0.00");
        await Eventually.SeeAsync(() => RefusalOfAsync(Deployment(team, "train"), dryRun: true), refusal => refusal is not null);
    }
}
