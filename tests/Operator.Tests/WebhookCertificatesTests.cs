using System.Security.Cryptography.X509Certificates;
using Tensormesh.Operator.Admission;

namespace Tensormesh.Operator.Tests;

/// <summary>Certificates through the years, by a clock that is data.</summary>
public sealed class WebhookCertificatesTests
{
    private static readonly DateTimeOffset T0 = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly string[] Hosts = ["tensormesh-operator-webhook.tensormesh-system.svc", "127.0.0.1"];

    [Fact]
    public void What_is_served_is_trusted_at_every_hour_of_four_years_by_whoever_read_the_secret_within_the_last_hour()
    {
        var held = WebhookCertificates.Create(Hosts, T0);
        var (servers, authorities) = (1, 1);
        for (var now = T0; now < T0.AddYears(4); now += TimeSpan.FromHours(1))
        {
            var next = WebhookCertificates.Renew(held, Hosts, now);
            // Where nothing changed, once a day shows that nothing ended.
            if (ReferenceEquals(next, held) && now.Hour != T0.Hour) continue;
            // Several replicas, one of which read last an hour ago: whatever one serves, the other's registration trusts.
            AssertTrusted(next, by: held, now);
            AssertTrusted(held, by: next, now);
            AssertTrusted(next, by: next, now);
            Assert.InRange(next.Authorities.Count, 1, 2);
            if (next.Server.Thumbprint != held.Server.Thumbprint) servers++;
            if (next.Authorities[^1].Thumbprint != held.Authorities[^1].Thumbprint) authorities++;
            held = next;
        }

        // Renewed when two thirds of a year are over, and no more often than that.
        Assert.InRange(authorities, 6, 7);
        Assert.InRange(servers, 6, 7);
    }

    [Fact]
    public void Nothing_is_due_a_day_after_it_was_made()
    {
        var held = WebhookCertificates.Create(Hosts, T0);
        Assert.Same(held, WebhookCertificates.Renew(held, Hosts, T0.AddDays(1)));
    }

    [Fact]
    public void What_was_written_to_the_secret_is_what_is_read_from_it()
    {
        var held = WebhookCertificates.Create(Hosts, T0);
        var read = WebhookCertificates.FromSecret(held.ToSecret())!;
        Assert.Equal(held.Server.Thumbprint, read.Server.Thumbprint);
        Assert.True(read.Server.HasPrivateKey);
        Assert.Equal(held.CaBundle, read.CaBundle);
        Assert.Same(read, WebhookCertificates.Renew(read, Hosts, T0.AddDays(1)));
        // And it can be renewed by whoever read it.
        var renewed = WebhookCertificates.Renew(read, Hosts, T0.AddDays(250));
        Assert.Equal(2, renewed.Authorities.Count);
        Assert.Equal(2, WebhookCertificates.FromSecret(renewed.ToSecret())!.Authorities.Count);
    }

    [Theory]
    [InlineData("tls.crt")]
    [InlineData("tls.key")]
    [InlineData("ca.crt")]
    [InlineData("ca.key")]
    public void A_secret_that_somebody_damaged_is_made_anew(string part)
    {
        var data = WebhookCertificates.Create(Hosts, T0).ToSecret();
        data[part] = "not a certificate"u8.ToArray();
        var held = WebhookCertificates.FromSecret(data);
        Assert.Null(held);
        AssertTrusted(WebhookCertificates.Renew(held, Hosts, T0), by: WebhookCertificates.Renew(held, Hosts, T0), T0, same: false);
    }

    [Fact]
    public void Another_address_is_served_at_once()
    {
        var held = WebhookCertificates.Create(Hosts, T0);
        var moved = WebhookCertificates.Renew(held, ["[::1]"], T0.AddDays(1));
        Assert.NotEqual(held.Server.Thumbprint, moved.Server.Thumbprint);
        Assert.Same(moved, WebhookCertificates.Renew(moved, ["[::1]"], T0.AddDays(1)));
    }

    [Fact]
    public void After_years_without_an_operator_everything_is_made_anew()
    {
        var old = WebhookCertificates.Create(Hosts, T0);
        var now = T0.AddYears(3);
        var next = WebhookCertificates.Renew(old, Hosts, now);
        AssertTrusted(next, by: next, now);
        Assert.DoesNotContain(next.Authorities, each => each.Thumbprint == old.Authorities[0].Thumbprint);
    }

    /// <summary>As the API server judges: a chain to one of the bundle, for a server, in its time.</summary>
    private static void AssertTrusted(WebhookCertificates served, WebhookCertificates by, DateTimeOffset now, bool same = true)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.ImportFromPem(System.Text.Encoding.ASCII.GetString(by.CaBundle));
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.VerificationTime = now.UtcDateTime;
        chain.ChainPolicy.ApplicationPolicy.Add(new System.Security.Cryptography.Oid("1.3.6.1.5.5.7.3.1"));
        var trusted = chain.Build(served.Server);
        // Two that were made apart have nothing to do with each other: the check can fail.
        Assert.True(trusted == same, $"at {now:O}: {string.Join(", ", chain.ChainStatus.Select(status => status.StatusInformation))}");
    }
}
